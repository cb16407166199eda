//! What the file says of an instance, and what becomes of its folder: the same for every engine. What only one of them
//! makes of its folder stands in that engine's own modules.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use config::InstanceConfig;
use election::{Address, Incarnation, Secret};

use super::account::Account;
use super::folder::{self, Found, Identity};
use super::{EngineError, Site};

/// The path of a unix socket is no longer than this, in bytes.
const SOCKET_PATH_LIMIT: usize = 107;

/// What the file says of the instance, and where it is.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) group: String,
    pub(crate) port: u16,
    /// The instance's folder.
    pub(crate) data_dir: PathBuf,
    pub(crate) adopt: bool,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) password_file: Option<PathBuf>,
    /// Whom the server runs as, where that is another than the agent.
    pub(crate) account: Option<Account>,
    pub(crate) site: Site,
}

/// A file system with less room than this, in bytes, counts as one that takes no writes: a MariaDB would wait for room,
/// without an answer to anybody, and a PostgreSQL end when it cannot begin the next file of its log.
const DISK_RESERVE: u64 = 32 << 20;

impl Setup {
    /// Whether the disk has room.
    pub(crate) fn has_room(&self) -> bool {
        // What cannot be looked at says nothing against the disk.
        let Ok(fs) = rustix::fs::statvfs(&self.data_dir) else { return true };
        fs.f_bavail.saturating_mul(fs.f_frsize) >= DISK_RESERVE
    }

    /// Reads it.
    pub(crate) fn new(instance: &InstanceConfig, site: &Site, account: Option<Account>) -> Result<Self, EngineError> {
        Ok(Self {
            group: instance.group.to_string(),
            port: instance.port,
            data_dir: folder::absolute(&instance.data_dir)?,
            adopt: instance.adopt,
            settings: instance.settings.clone(),
            password_file: instance.password_file.clone(),
            account,
            site: Site { data_dir: folder::absolute(&site.data_dir)?, ..site.clone() },
        })
    }

    /// Sees, before anything runs, that its passwords can be read and its folders be used.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        self.client_password()?;
        folder::prepare(&self.site.data_dir)?;
        if matches!(self.examine()?, Found::Foreign(_)) {
            return Ok(()); // It takes no part, and says so.
        }
        folder::prepare(&self.data_dir)?;
        self.account.as_ref().map_or(Ok(()), |account| account.reaches(&self.data_dir))
    }

    /// Sees that a socket can have this path.
    pub(crate) fn check_socket(&self, socket: &Path) -> Result<(), EngineError> {
        if socket.as_os_str().len() <= SOCKET_PATH_LIMIT {
            return Ok(());
        }
        let why = format!("its path is too long for a socket in it ({SOCKET_PATH_LIMIT} bytes at most): name another");
        Err(EngineError::Folder { path: self.data_dir.clone(), why })
    }

    /// Where others reach the database.
    pub(crate) fn address(&self) -> Address {
        Address::new(self.site.address.clone(), self.port)
    }

    /// A file of this instance in the agent's own folder.
    pub(crate) fn own_file(&self, name: &str) -> PathBuf {
        self.site.data_dir.join(format!("{}.{name}", self.group))
    }

    /// Whose data the folder holds.
    pub(crate) fn examine(&self) -> Result<Found, EngineError> {
        folder::examine(&self.data_dir, &self.group, self.adopt)
    }

    /// Sees that the folder is ours before a server is started on it, and is the server's to write to. `adopt` says no to
    /// data that is to become ours and cannot, before anything is touched.
    pub(crate) fn claim(&self, adopt: impl FnOnce() -> Result<(), EngineError>) -> Result<(), EngineError> {
        let found = self.examine()?;
        if let Found::Foreign(why) = found {
            return Err(EngineError::Foreign { why });
        }
        folder::prepare(&self.data_dir)?;
        if found == Found::Adoptable {
            adopt()?;
        }
        if found != Found::Ours {
            let (group, node) = (self.group.clone(), self.site.node.clone());
            folder::claim(&self.data_dir, &Identity { group, node, made_by: env!("CARGO_PKG_VERSION").to_owned() })?;
        }
        self.own(&self.data_dir)
    }

    /// Removes everything in the folder but what says that it is ours, and the server's log.
    pub(crate) async fn clear(&self, log: &'static str) -> Result<(), EngineError> {
        match self.examine()? {
            Found::Ours => {}
            Found::Foreign(why) => return Err(EngineError::Foreign { why }),
            Found::Empty | Found::Adoptable => return Ok(()),
        }
        let folder = self.data_dir.clone();
        let done = tokio::task::spawn_blocking(move || folder::clear(&folder, &[log])).await;
        done.unwrap_or_else(|e| Err(EngineError::io("clear", &self.data_dir)(io::Error::other(e))))
    }

    /// Gives a file or folder to whom the server runs as.
    pub(crate) fn own(&self, path: &Path) -> Result<(), EngineError> {
        self.account.as_ref().map_or(Ok(()), |account| account.own(path))
    }

    /// Sees that the server's own folder belongs to whom it runs as. It would refuse any other, or not even be started there,
    /// with words that few understand.
    pub(crate) fn check_owner(&self, folder: &Path) -> Result<(), EngineError> {
        let owner = fs::metadata(folder).map_err(EngineError::io("read", folder))?.uid();
        let own = rustix::process::geteuid().as_raw();
        let (name, wanted) = self.account.as_ref().map_or(("the agent's own user", own), Account::id);
        if owner == wanted {
            return Ok(());
        }
        let why = format!(
            "belongs to the user of number {owner}, and the server runs as `{name}` (number {wanted}): give it back with \
             all that is in it (chown -R {wanted})"
        );
        Err(EngineError::Folder { path: folder.to_owned(), why })
    }

    /// The clients' password.
    pub(crate) fn client_password(&self) -> Result<Option<Secret>, EngineError> {
        folder::password(self.password_file.as_deref())
    }

    /// The agent's own password, drawn once, so that a restarted agent can log in to the running process.
    pub(crate) fn agent_password(&self) -> Result<Secret, EngineError> {
        folder::own_secret(&self.own_file("secret"))
    }

    /// What the folder makes of an instance that does not run.
    pub(crate) fn at_rest(&self, why: String) -> election::Engine {
        match self.examine() {
            Ok(Found::Foreign(why)) => election::Engine::Foreign { why },
            Ok(_) => election::Engine::Down { why },
            Err(e) => election::Engine::Down { why: format!("{why}; {e}") },
        }
    }

    /// What is said of a process that runs since `started` and gives no answer; `heard`: when it last did.
    pub(crate) fn silent(
        &self,
        heard: Option<Instant>,
        started: Instant,
        incarnation: Option<Incarnation>,
    ) -> election::Engine {
        let since = self.site.clock.at(heard.unwrap_or(started).max(started));
        election::Engine::Silent { since, incarnation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_owner_of_the_servers_folder_has_to_be_whom_it_runs_as() {
        let dir = tempfile::tempdir().unwrap();
        let site = Site {
            node: "db1".into(),
            address: "127.0.0.1".into(),
            data_dir: dir.path().to_owned(),
            clock: Clock::start(),
            agents: tokio::sync::watch::channel(Default::default()).1,
            nodes: tokio::sync::watch::channel(None).1,
        };
        let config = InstanceConfig { data_dir: dir.path().join("data"), ..InstanceConfig::default() };
        let mut setup = Setup::new(&config, &site, None).unwrap();
        setup.check_owner(dir.path()).unwrap();
        setup.account = Some(Account::of("stranger", 64_999));
        let error = setup.check_owner(dir.path()).unwrap_err().to_string();
        assert!(error.contains("`stranger`") && error.contains("chown -R 64999"), "{error}");
    }
}
