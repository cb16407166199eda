//! Whose data a folder holds: an agent never overwrites what it did not write (invariant 13).

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use election::Secret;
use serde::{Deserialize, Serialize};

use super::EngineError;

/// The file that says that a folder is ours.
pub(crate) const IDENTITY: &str = "understudy.json";

/// Part of a file system, and nobody's data.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// What stands in a folder's identity file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The group whose data it is.
    pub(crate) group: String,
    /// The node that made it.
    pub(crate) node: String,
    /// The version that made it.
    pub(crate) made_by: String,
}

/// What a folder turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It has our identity.
    Ours,
    /// There is nothing in it, or there is no such folder.
    Empty,
    /// It has data, and the file says `adopt = true`.
    Adoptable,
    /// It has data that is not ours: a sentence that says what, and what to do.
    Foreign(String),
}

/// Looks at a folder and changes nothing.
pub(crate) fn examine(path: &Path, group: &str, adopt: bool) -> Result<Found, EngineError> {
    let file = path.join(IDENTITY);
    match fs::read(&file) {
        Ok(bytes) => return Ok(judge(path, &bytes, group)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(not_a_folder(path)),
        Err(e) => return Err(EngineError::io("read", &file)(e)),
    }
    let Some(stranger) = first_entry(path)? else { return Ok(Found::Empty) };
    if adopt {
        return Ok(Found::Adoptable);
    }
    Ok(Found::Foreign(format!(
        "{} holds data that Understudy did not write (`{}` is there, `{IDENTITY}` is not): nothing was touched. Name an \
         empty folder in `data_dir`; or set `adopt = true` on exactly one node, and the group begins with this data",
        path.display(),
        stranger.to_string_lossy()
    )))
}

/// Makes the folder when there is none, and sees that it can be written to.
pub(crate) fn prepare(path: &Path) -> Result<(), EngineError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => not_a_folder(path),
        _ => EngineError::Folder {
            path: path.to_owned(),
            why: format!("cannot be made ({e}): make it, owned by the user that the agent runs as"),
        },
    })?;
    let unwritable = |e: io::Error| EngineError::Folder {
        path: path.to_owned(),
        why: format!("cannot be written to ({e}): it must belong to the user that the agent runs as"),
    };
    let trial = path.join(".understudy-trial");
    fs::write(&trial, b"").map_err(unwritable)?;
    fs::remove_file(&trial).map_err(unwritable)
}

/// Writes the identity, so that it is on disk before any data is.
pub(crate) fn claim(path: &Path, identity: &Identity) -> Result<(), EngineError> {
    let text = serde_json::to_vec_pretty(identity).map_err(|e| EngineError::Folder {
        path: path.to_owned(),
        why: format!("its identity cannot be written as JSON ({e})"),
    })?;
    write_private(&path.join(IDENTITY), &text)
}

/// Removes everything in a folder of ours but its identity and the files named `keep`.
pub(crate) fn clear(path: &Path, keep: &[&str]) -> Result<(), EngineError> {
    let clear = || -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let stays = |name: &str| [IDENTITY, LOST_AND_FOUND].contains(&name) || keep.contains(&name);
            let kept = entry.file_name().to_str().is_some_and(stays);
            match (kept, entry.file_type()?.is_dir()) {
                (true, _) => {}
                (false, true) => fs::remove_dir_all(entry.path())?,
                (false, false) => fs::remove_file(entry.path())?,
            }
        }
        fs::File::open(path)?.sync_all()
    };
    clear().map_err(EngineError::io("clear", path))
}

/// Copies the files of one folder into another that appears whole, on disk, or not at all; there already, it stays.
pub(crate) fn keep(from: &Path, to: &Path) -> Result<(), EngineError> {
    appear(to, |new| {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                copy_synced(&entry.path(), &new.join(entry.file_name()))?;
            }
        }
        Ok(())
    })
}

/// Makes a folder that appears whole or not at all: `fill` puts into it, and on disk, what is to be there. There already,
/// it stays.
pub(crate) fn appear(path: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), EngineError> {
    let make = || -> io::Result<()> {
        if path.exists() {
            return Ok(());
        }
        let new = path.with_extension("new");
        remove_tree(&new)?;
        fs::DirBuilder::new().mode(0o700).create(&new)?;
        fill(&new)?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    };
    make().map_err(EngineError::io("copy into", path))
}

/// Copies a file, and waits until it is on disk.
pub(crate) fn copy_synced(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::File::open(to)?.sync_all()
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    unless_missing(fs::remove_dir_all(path))
}

/// Removes a file, if it is there.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    unless_missing(fs::remove_file(path))
}

/// The same, so that a power cut does not bring it back.
pub(crate) fn remove_for_good(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.and_then(|()| path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())),
    }
}

fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The highest number that follows `prefix` among a folder's entries.
pub(crate) fn kept(path: &Path, prefix: &str) -> Option<u64> {
    let entries = fs::read_dir(path).ok()?;
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()).max()
}

/// Replaces a file by a whole new one, on disk, readable by its owner only.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    replace(path, bytes, true)
}

/// The same, without waiting for the disk: for what is written anew at every start, so that nobody misses it after a
/// power cut.
pub(crate) fn write_passing(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    replace(path, bytes, false)
}

fn replace(path: &Path, bytes: &[u8], sync: bool) -> Result<(), EngineError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    let write = || -> io::Result<()> {
        // A left-over of a crash may have other rights: `mode` concerns new files only.
        remove_file(new)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        file.write_all(bytes)?;
        if !sync {
            return fs::rename(new, path);
        }
        file.sync_all()?;
        fs::rename(new, path)?;
        path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
    };
    write().map_err(EngineError::io("write", path))
}

/// The clients' password, where the instance has a file for it. One line end at the file's end is not part of it.
pub(crate) fn password(file: Option<&Path>) -> Result<Option<Secret>, EngineError> {
    let Some(path) = file else { return Ok(None) };
    let fault = |why: String| EngineError::PasswordFile { path: path.to_owned(), why };
    let text = fs::read_to_string(path)
        .map_err(|e| fault(format!("cannot be read ({e}): it must be readable by the user that the agent runs as")))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(fault("is empty: write the password into it, or remove the key".to_owned()));
    }
    Ok(Some(Secret::new(password)))
}

/// A password of the agent's own, drawn once and kept in `path`, so that a restarted agent knows it too.
pub(crate) fn own_secret(path: &Path) -> Result<Secret, EngineError> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(Secret::new(text.trim())),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(EngineError::io("read", path)(e)),
        _ => {}
    }
    let drawn = draw();
    write_private(path, drawn.reveal().as_bytes())?;
    Ok(drawn)
}

/// A text that nobody can guess: 244 random bits.
pub(crate) fn draw() -> Secret {
    Secret::new(format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()))
}

/// The path from the root on.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, EngineError> {
    std::path::absolute(path).map_err(EngineError::io("find", path))
}

/// What an identity file makes of its folder.
fn judge(path: &Path, bytes: &[u8], group: &str) -> Found {
    match serde_json::from_slice::<Identity>(bytes) {
        Ok(identity) if identity.group == group => Found::Ours,
        Ok(identity) => Found::Foreign(format!(
            "{} holds the data of group `{}` (its `{IDENTITY}` says so), not of `{group}`: nothing was touched. Name \
             another folder in `data_dir`",
            path.display(),
            identity.group
        )),
        Err(e) => Found::Foreign(format!(
            "{} has a `{IDENTITY}` that cannot be read ({e}): nothing was touched. Restore the file, or name an empty \
             folder in `data_dir`",
            path.display()
        )),
    }
}

/// The name of something in the folder that may be data.
fn first_entry(path: &Path) -> Result<Option<OsString>, EngineError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(not_a_folder(path)),
        Err(e) => return Err(EngineError::io("read", path)(e)),
    };
    for entry in entries {
        let name = entry.map_err(EngineError::io("read", path))?.file_name();
        if name != LOST_AND_FOUND {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn not_a_folder(path: &Path) -> EngineError {
    EngineError::Folder { path: path.to_owned(), why: "is not a folder: name another".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(group: &str) -> Identity {
        Identity { group: group.into(), node: "db1".into(), made_by: "1".into() }
    }

    #[test]
    fn a_folder_is_empty_until_it_is_claimed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        assert_eq!(examine(&path, "g", false).unwrap(), Found::Empty);
        prepare(&path).unwrap();
        fs::create_dir(path.join(LOST_AND_FOUND)).unwrap();
        assert_eq!(examine(&path, "g", false).unwrap(), Found::Empty);
        claim(&path, &identity("g")).unwrap();
        assert_eq!(examine(&path, "g", false).unwrap(), Found::Ours);
    }

    #[test]
    fn what_is_cleared_stays_a_file_system_and_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        claim(path, &identity("g")).unwrap();
        fs::create_dir(path.join(LOST_AND_FOUND)).unwrap();
        fs::create_dir_all(path.join("data/below")).unwrap();
        fs::write(path.join("log"), b"").unwrap();
        clear(path, &["log"]).unwrap();
        assert!(path.join(LOST_AND_FOUND).exists() && path.join("log").exists() && !path.join("data").exists());
        assert_eq!(examine(path, "g", false).unwrap(), Found::Ours);
    }

    #[test]
    fn data_without_an_identity_is_foreign_unless_adopted() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("dump.rdb"), b"REDIS").unwrap();
        let Found::Foreign(why) = examine(dir.path(), "g", false).unwrap() else { panic!("must be foreign") };
        assert!(
            why.contains("dump.rdb") && why.contains("adopt") && why.contains(dir.path().to_str().unwrap()),
            "{why}"
        );
        assert_eq!(examine(dir.path(), "g", true).unwrap(), Found::Adoptable);
    }

    #[test]
    fn the_data_of_another_group_is_foreign_even_to_who_adopts() {
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path(), &identity("other")).unwrap();
        let Found::Foreign(why) = examine(dir.path(), "g", true).unwrap() else { panic!("must be foreign") };
        assert!(why.contains("`other`"), "{why}");
        fs::write(dir.path().join(IDENTITY), b"{").unwrap();
        assert!(matches!(examine(dir.path(), "g", true).unwrap(), Found::Foreign(_)));
    }

    #[test]
    fn a_file_is_not_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        for error in [examine(&file, "g", false).unwrap_err(), prepare(&file).unwrap_err()] {
            assert!(error.to_string().contains("is not a folder"), "{error}");
        }
        assert!(prepare(&file.join("below")).unwrap_err().to_string().contains("is not a folder"));
    }

    #[test]
    fn a_private_file_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        write_private(&file, b"one").unwrap();
        write_private(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
