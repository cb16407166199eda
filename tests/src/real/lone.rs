//! An agent with a file of the test's own making, beside a rig's Consul.

use super::Story;
use anyhow::{Context, Result};
use cli::rig::{Process, free_port, http, program as program_on_path, understudy_binary};
use config::Engine;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An agent that belongs to no rig but works in its folder: it ends with it, and so does its database.
pub struct Lone {
    /// Its process.
    pub process: Process,
    /// Where it answers.
    pub http: u16,
    /// Where its database is to listen.
    pub port: u16,
    /// Its folder; the file is `agent.toml` in it.
    pub folder: PathBuf,
}

impl Lone {
    /// Starts an agent of node `name` in the rig's group. `change` may rewrite the text of its file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(story: &Story, name: &str, change: impl FnOnce(String) -> String) -> Result<Self> {
        let (folder, file, [http, port]) = prepare(story, name, change)?;
        let args = [Path::new("agent"), Path::new("--config"), &file];
        let process = Process::start(name, &understudy_binary()?, args, &folder, &folder.join("log"))?;
        Ok(Self { process, http, port, folder })
    }

    /// The same as a user without rights; where the tests do not run as root, as their own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_without_rights(story: &Story, name: &str, change: impl FnOnce(String) -> String) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Self::start(story, name, change);
        }
        let (folder, file, [http, port]) = prepare(story, name, change)?;
        // Where it was built may be closed to others.
        let program = folder.join("understudy");
        std::fs::copy(understudy_binary()?, &program)?;
        let owner = Command::new("chown").args(["-R", "nobody:nogroup"]).arg(&folder).status()?;
        anyhow::ensure!(owner.success(), "chown: {owner}");
        let nobody = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"].map(Path::new);
        let args = nobody.into_iter().chain([&program, Path::new("agent"), Path::new("--config"), &file]);
        let setpriv = program_on_path("setpriv").context("no setpriv")?;
        let process = Process::start(name, &setpriv, args, &folder, &folder.join("log"))?;
        Ok(Self { process, http, port, folder })
    }

    /// What it has logged so far.
    ///
    /// # Errors
    /// When it has no log.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.join("log"))?)
    }

    /// What it says of its instance.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> Result<agent::api::InstanceStatus> {
        let url = format!("http://127.0.0.1:{}/status", self.http);
        let page: agent::api::AgentStatus = http().get(url).send().await?.error_for_status()?.json().await?;
        page.instances.into_iter().next().context("an agent without an instance")
    }

    /// Waits until it says that its instance is well.
    ///
    /// # Errors
    /// When it does not.
    pub async fn healthy(&self) -> Result<()> {
        super::until("a healthy node", async || {
            let said = self.status().await?;
            anyhow::ensure!(said.healthy, "{}: {}\n{}", said.reason_code, said.reason, self.log()?);
            Ok(Some(()))
        })
        .await
    }

    /// The process of its database in a group.
    ///
    /// # Errors
    /// When it has not written down that it started one.
    pub fn database_pid(&self, group: &str) -> Result<u32> {
        let note = std::fs::read(self.folder.join("agent").join(format!("{group}.run.json")))?;
        let note: serde_json::Value = serde_json::from_slice(&note)?;
        Ok(u32::try_from(note["pid"].as_u64().context("no pid")?)?)
    }

    /// Kills it and everything that it has started.
    ///
    /// # Errors
    /// When something stays.
    pub async fn kill(mut self) -> Result<()> {
        self.process.kill();
        super::until("the end of all that it started", async || {
            let left = working_in(&self.folder)?;
            left.iter().for_each(|pid| drop(super::send(*pid, Signal::KILL)));
            Ok(left.is_empty().then_some(()))
        })
        .await
    }

    /// Waits for its end; its exit code, -1 for a signal.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn ended(&mut self) -> Result<i32> {
        let status = super::until("the agent's end", async || Ok(self.process.ended())).await?;
        Ok(status.code().unwrap_or(-1))
    }
}

/// The processes that work in a folder or below it.
///
/// # Errors
/// When the system does not tell.
pub fn working_in(folder: &Path) -> Result<Vec<u32>> {
    let pids = std::fs::read_dir("/proc")?.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let inside = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    Ok(pids.filter(inside).collect())
}

/// The folder and the file of an agent, and its ports.
fn prepare(story: &Story, name: &str, change: impl FnOnce(String) -> String) -> Result<(PathBuf, PathBuf, [u16; 2])> {
    let folder = story.folder().join(format!("lone-{name}"));
    std::fs::create_dir_all(&folder)?;
    let (http, port) = (free_port()?, free_port()?);
    let file = folder.join("agent.toml");
    std::fs::write(&file, change(text(story, name, &folder, http, port)))?;
    Ok((folder, file, [http, port]))
}

/// For [`Lone::start`]: the same file, of an instance of this engine.
pub fn of(engine: Engine, text: String) -> String {
    let text = text.replace("engine = \"redis\"", &format!("engine = \"{}\"", engine.as_str()));
    match engine {
        Engine::Mariadb => text + "\n[instance.settings]\ninnodb_buffer_pool_size = \"16M\"\n",
        _ => text,
    }
}

/// The same, of one that adopts what is in its folder.
pub fn adopting(engine: Engine, text: String) -> String {
    of(engine, text.replace("[[instance]]", "[[instance]]\nadopt = true"))
}

fn text(story: &Story, name: &str, folder: &Path, http: u16, port: u16) -> String {
    let folder = folder.display();
    format!(
        "[node]\nname = \"{name}\"\naddress = \"127.0.0.1\"\ndata_dir = \"{folder}/agent\"\n\n\
         [consul]\naddresses = [\"{consul}\"]\n\n\
         [http]\nlisten = \"127.0.0.1:{http}\"\n\n\
         [[instance]]\ngroup = \"{group}\"\nengine = \"redis\"\nport = {port}\ndata_dir = \"{folder}/redis\"\n",
        consul = story.consul_address(),
        group = story.group(),
    )
}
