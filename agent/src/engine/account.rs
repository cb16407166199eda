//! The system user that a server runs as: servers refuse to run as root, and agents often do.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tokio::process::Command;

use super::EngineError;

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// The user that `server` has to run as: nobody else than the agent's own user, unless that is root.
    pub(crate) async fn for_server(server: &'static str, user: &'static str) -> Result<Option<Self>, EngineError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let unusable = |why: &str| EngineError::User { server, user, why: why.to_owned() };
        // Asked of the system and not of its file: users may come from elsewhere.
        let asked = Command::new("getent").args(["passwd", user]).kill_on_drop(true).output().await;
        let asked = asked.map_err(|e| unusable(&format!("getent does not run: {e}")))?;
        let account = parse(&String::from_utf8_lossy(&asked.stdout)).ok_or_else(|| unusable("there is none"))?;
        if account.uid == 0 {
            return Err(unusable("it is root too"));
        }
        Ok(Some(account))
    }

    /// A user that need not be there.
    #[cfg(test)]
    pub(crate) fn of(name: &str, id: u32) -> Self {
        Self { name: name.to_owned(), uid: id, gid: id }
    }

    /// Lets `command` run as this user, and with no other groups than its own.
    pub(crate) fn run(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Makes this user the owner of a file or folder.
    pub(crate) fn own(&self, path: &Path) -> Result<(), EngineError> {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).map_err(EngineError::io("hand over", path))
    }

    /// Makes this user the owner of a folder and everything in it. Links are not followed.
    pub(crate) fn own_all(&self, path: &Path) -> Result<(), EngineError> {
        self.own(path)?;
        if !fs::symlink_metadata(path).map_err(EngineError::io("read", path))?.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(path).map_err(EngineError::io("read", path))? {
            self.own_all(&entry.map_err(EngineError::io("read", path))?.path())?;
        }
        Ok(())
    }

    /// Its name and number.
    pub(crate) fn id(&self) -> (&str, u32) {
        (&self.name, self.uid)
    }

    /// Whether this user can get to `path`, whose folders all exist; an error names the first that is closed.
    pub(crate) fn reaches(&self, path: &Path) -> Result<(), EngineError> {
        for folder in path.ancestors().skip(1) {
            let closed = self.enters(folder).map(|enters| !enters).map_err(EngineError::io("read", folder))?;
            if closed {
                let (path, closed) = (path.to_owned(), folder.to_owned());
                return Err(EngineError::Unreachable { path, closed, user: self.name.clone() });
            }
        }
        Ok(())
    }

    fn enters(&self, folder: &Path) -> io::Result<bool> {
        let found = fs::metadata(folder)?;
        let bit = match (found.uid() == self.uid, found.gid() == self.gid) {
            (true, _) => 0o100,
            (_, true) => 0o010,
            _ => 0o001,
        };
        Ok(found.permissions().mode() & bit != 0)
    }
}

/// The name of the user that the agent runs as; its number where it has none.
pub(crate) async fn own_name() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let asked = Command::new("getent").args(["passwd", &uid]).kill_on_drop(true).output().await;
    let found = asked.ok().and_then(|said| parse(&String::from_utf8_lossy(&said.stdout)));
    found.map_or(uid, |account| account.name)
}

/// Reads a line of `passwd`.
fn parse(line: &str) -> Option<Account> {
    let mut fields = line.lines().next()?.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Account { name, uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_is_read() {
        let account = parse("postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n").unwrap();
        assert_eq!((account.name.as_str(), account.uid, account.gid), ("postgres", 101, 104));
        assert_eq!(parse(""), None);
        assert_eq!(parse("postgres:x:"), None);
    }

    #[test]
    fn a_folder_that_is_closed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("closed");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account::of("nobody", 64_999);
        let error = stranger.reaches(&inner.join("data")).unwrap_err().to_string();
        assert!(error.contains("closed") && error.contains("`nobody`") && error.contains("chmod o+x"), "{error}");
    }
}
