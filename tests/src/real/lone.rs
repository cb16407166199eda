//! An agent with a file of the test's own making, beside a rig's Consul.

use super::Story;
use anyhow::{Context, Result};
use cli::rig::{Process, free_port, http, understudy_binary};
use std::path::{Path, PathBuf};

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
        let folder = story.folder().join(format!("lone-{name}"));
        std::fs::create_dir_all(&folder)?;
        let (http, port) = (free_port()?, free_port()?);
        let file = folder.join("agent.toml");
        std::fs::write(&file, change(text(story, name, &folder, http, port)))?;
        let args = [Path::new("agent"), Path::new("--config"), &file];
        let process = Process::start(name, &understudy_binary()?, args, &folder, &folder.join("log"))?;
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

    /// Waits for its end; its exit code, -1 for a signal.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn ended(&mut self) -> Result<i32> {
        let status = super::until("the agent's end", async || Ok(self.process.ended())).await?;
        Ok(status.code().unwrap_or(-1))
    }
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
