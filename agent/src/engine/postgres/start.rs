//! Starting the server: its folder made, adopted or found, and always as a standby of nobody.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;
use tracing::info;

use super::config::{Gate, Live, Plan, SUPERUSER};
use super::link::{self, Link};
use super::program::Program;
use super::rebuild::{INCOMPLETE, forget_overrides, own_all, remove};
use super::turn::Turn;
use super::{DATA, FRESH, LOG, Postgres, config};
use crate::engine::folder::{IDENTITY, LOST_AND_FOUND};
use crate::engine::setup::Setup;
use crate::engine::{EngineError, KEPT};

/// How often a starting server is asked whether it answers.
const START_POLL: Duration = Duration::from_millis(5);

/// How long a fenced master has to end by itself. It has nothing left to do.
const FENCE_LIMIT: Duration = Duration::from_secs(2);

/// The file that says that a folder is being adopted: a crash in between is gone on from.
const ADOPTING: &str = "adopting";

/// With it a server starts as a standby.
const STANDBY: &str = "standby.signal";

impl Postgres {
    /// Makes the process run, and waits until it answers, be it that it is not ready yet.
    pub(super) async fn start(&mut self) -> Result<(), EngineError> {
        if self.pursuit.is_rebuilding() {
            return Ok(()); // The copy that is being made is started when it is whole.
        }
        if self.supervisor.life().ended().is_some() && !self.adopt_left_behind()? {
            let turn = self.turns.next().await;
            self.prepare(&turn).await?;
            self.launch(&Live::sealed()).await?;
        }
        loop {
            match Link::open(&self.setup.target()).await {
                Err(error) if !link::is_not_ready(&error) => {
                    tracing::trace!(group = self.setup.group, %error, "not answering yet");
                }
                _ => return Ok(()),
            }
            self.supervisor.still_runs(START_POLL).await?;
        }
    }

    /// A deposed master: ended at once (an orderly end would write what no copy has), and started as a standby of
    /// nobody. Its clients' connections end with it.
    pub(super) async fn fence(&mut self) -> Result<(), EngineError> {
        self.hang_up();
        self.pursuit.give_up();
        if let Some(mut handle) = self.supervisor.handle() {
            handle.end(Signal::QUIT, FENCE_LIMIT).await;
        }
        self.start().await
    }

    /// Takes over a server that runs on this folder although there is no run file: the agent before this one may have
    /// ended between starting it and writing that down.
    fn adopt_left_behind(&mut self) -> Result<bool, EngineError> {
        let note = fs::read_to_string(self.setup.data().join("postmaster.pid")).unwrap_or_default();
        let Some(pid) = note.lines().next().and_then(|line| line.trim().parse::<i32>().ok()) else { return Ok(false) };
        let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
        let data = self.setup.data().canonicalize().ok();
        let ours = data.is_some() && link("cwd") == data && link("exe").is_some_and(|exe| Program::is_server(&exe));
        // What the agent itself did not start has other files.
        let by_agent = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            let file = self.setup.data_dir.join(config::MAIN);
            String::from_utf8_lossy(&line).contains(&*file.to_string_lossy())
        });
        Ok(ours && by_agent && self.supervisor.adopt(pid, self.setup.port)?)
    }

    /// Sees that there is a whole folder to start on.
    async fn prepare(&mut self, turn: &Turn) -> Result<(), EngineError> {
        let setup = &self.setup;
        setup.claim(|| {
            setup.check_adoptable(&self.program)?;
            setup.note(ADOPTING, "")
        })?;
        self.end_stragglers().await;
        let setup = &self.setup;
        if setup.data_dir.join(ADOPTING).exists() {
            setup.adopt()?;
            own_all(turn, setup.account.as_ref(), &setup.data()).await?;
            setup.remove(ADOPTING)?;
        }
        if setup.data_dir.join(INCOMPLETE).exists() {
            info!(group = setup.group, "the copy was not whole: it is thrown away");
            turn.work("remove", &setup.data(), remove).await?;
            setup.remove(INCOMPLETE)?;
        }
        if !setup.data().exists() {
            self.initialise().await?;
        }
        self.setup.check_owner(&self.setup.data())?;
        let file = self.setup.data().join("PG_VERSION");
        let version = fs::read_to_string(&file).map_err(EngineError::io("read", &file))?;
        if version.trim() != self.program.major.to_string() {
            let why = format!(
                "{} holds the data of PostgreSQL {}, and the program is of version {}: set `bin` to the folder of the \
                 programs of that version, or upgrade the data with pg_upgrade",
                self.setup.data().display(),
                version.trim(),
                self.program.version
            );
            return Err(EngineError::Foreign { why });
        }
        Ok(())
    }

    /// Makes a new server's folder, which appears whole or not at all.
    async fn initialise(&self) -> Result<(), EngineError> {
        let setup = &self.setup;
        let new = setup.data_dir.join(format!("{DATA}.new"));
        remove(&new)?;
        let mut command = Command::new(self.program.path("initdb"));
        command.arg("--pgdata").arg(&new).args(["--username", SUPERUSER, "--auth", "reject", "--data-checksums"]);
        command.args(["--encoding", "UTF8", "--locale", "C.UTF-8"]).current_dir(&setup.data_dir).env("LC_ALL", "C");
        if let Some(account) = &setup.account {
            account.run(&mut command);
        }
        let program = PathBuf::from(command.as_std().get_program());
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.map_err(EngineError::io("run", &program))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
            return Err(EngineError::Refused { op: "make the server's folder (initdb)", answer: last.to_owned() });
        }
        setup.note(FRESH, "")?;
        fs::rename(&new, setup.data()).map_err(EngineError::io("name", &new))
    }

    /// Starts the process on a folder that is there, with these settings besides those that never change.
    pub(super) async fn launch(&mut self, live: &Live) -> Result<(), EngineError> {
        self.end_stragglers().await;
        let setup = &self.setup;
        let data = setup.data();
        forget_overrides(&data)?;
        self.boot_as_standby()?;
        let plan =
            Plan { address: &setup.site.address, port: setup.port, folder: &setup.data_dir, settings: &setup.settings };
        setup.write(&setup.data_dir.join(config::MAIN), &config::generate(&plan))?;
        setup.write(&setup.data_dir.join(config::IDENT), &config::ident(&self.agent))?;
        setup.write(&setup.data_dir.join(config::LIVE), &live.text())?;
        setup.write_gate(Gate::COPY)?;
        self.gate = Gate::COPY;
        let mut command = Command::new(self.program.path("postgres"));
        command
            .arg("-D")
            .arg(&data)
            .arg("-c")
            .arg(format!("config_file={}", setup.data_dir.join(config::MAIN).display()));
        command.current_dir(&data).env("LC_ALL", "C");
        let (log, port) = (setup.data_dir.join(LOG), setup.port);
        self.supervisor.spawn(command, self.setup.account.as_ref(), &log, port)?;
        self.hang_up();
        self.meet();
        Ok(())
    }

    /// Whoever starts the server next starts a standby.
    pub(super) fn boot_as_standby(&self) -> Result<(), EngineError> {
        let path = self.setup.data().join(STANDBY);
        if path.exists() {
            return Ok(());
        }
        self.setup.write(&path, "")
    }
}

impl Setup {
    /// Whether a folder that is to be adopted is a server's that is down.
    fn check_adoptable(&self, program: &Program) -> Result<(), EngineError> {
        let foreign = |why: String| EngineError::Foreign { why };
        let shown = self.data_dir.display();
        let Ok(version) = fs::read_to_string(self.data_dir.join("PG_VERSION")) else {
            return Err(foreign(format!(
                "{shown} is to be adopted, but it is no data folder of PostgreSQL (there is no `PG_VERSION` in it): \
                 nothing was touched. Name the folder that `SHOW data_directory` tells"
            )));
        };
        if version.trim() != program.major.to_string() {
            return Err(foreign(format!(
                "{shown} holds the data of PostgreSQL {}, and the program is of version {}: nothing was touched. Set \
                 `bin` to the folder of the programs of that version",
                version.trim(),
                program.version
            )));
        }
        let spaces = self.data_dir.join("pg_tblspc");
        if fs::read_dir(&spaces).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(foreign(format!(
                "{shown} has tablespaces ({} is not empty), whose data lie elsewhere and would be on no copy: nothing was \
                 touched. Start the server as before, move what is in them (ALTER DATABASE or TABLE … SET TABLESPACE \
                 pg_default), and remove them with DROP TABLESPACE",
                spaces.display()
            )));
        }
        let note = fs::read_to_string(self.data_dir.join("postmaster.pid")).unwrap_or_default();
        let pid = note.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
        if let Some(pid) = pid.filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            return Err(foreign(format!(
                "{shown} is in use by process {pid}: nothing was touched. Stop that server, and see that nothing \
                 starts it again"
            )));
        }
        Ok(())
    }

    /// Moves a server's folder below the instance's; may be gone on with after a crash.
    fn adopt(&self) -> Result<(), EngineError> {
        let (folder, data) = (&self.data_dir, self.data());
        let ours =
            |name: &str| [IDENTITY, DATA, ADOPTING, LOG, LOST_AND_FOUND].contains(&name) || name.starts_with(KEPT);
        let adopt = || -> io::Result<()> {
            match fs::create_dir(&data) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name();
                if !name.to_str().is_some_and(ours) {
                    fs::rename(entry.path(), data.join(name))?;
                }
            }
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
            fs::File::open(&data)?.sync_all()?;
            fs::File::open(folder)?.sync_all()
        };
        adopt().map_err(EngineError::io("move the data into", &data))
    }
}
