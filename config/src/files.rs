//! The files that a configuration names: can they be read, and does a secret stay one?

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use election::Secret;

/// No password or token is longer; what is, is another file than the one that was meant.
const SECRET_BYTES: u64 = 4096;

/// The permission bits of those who are neither the file's owner nor in its group.
const OTHERS: u32 = 0o007;

/// Why a secret could not be had from a file.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("{path} cannot be read; let it exist and be readable for the user who runs understudy", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Anybody on the machine may read or change it.
    #[error("{path} has mode {mode:04o}, open to every user of the machine; say chmod o-rwx", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else than one secret.
    #[error("{path} {why}; let it hold the secret alone, in one line", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it holds.
        why: &'static str,
    },
}

/// Reads a password or token: the file's only line, without the line's end.
pub fn read_secret(path: &Path) -> Result<Secret, SecretError> {
    let content = |why| SecretError::Content { path: path.to_owned(), why };
    let bytes = read_up_to(path, SECRET_BYTES + 1)
        .map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() as u64 > SECRET_BYTES {
        return Err(content("is longer than any secret"));
    }
    let text = String::from_utf8(bytes).map_err(|_| content("is not text"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line {
        "" => Err(content("is empty")),
        _ if line.contains('\n') => Err(content("has more than one line")),
        _ if line.chars().any(char::is_control) => Err(content("holds a control character")),
        _ => Ok(Secret::new(line)),
    }
}

/// What is wrong with a file that holds a secret, if anything: what [`read_secret`] finds, and whether it is open to
/// all.
pub(crate) fn check_secret(path: &Path) -> Result<(), SecretError> {
    read_secret(path)?;
    check_closed(path)
}

/// A fault when others than the file's owner and group may read or change it.
pub(crate) fn check_closed(path: &Path) -> Result<(), SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode });
    }
    Ok(())
}

/// The error and its cause in one line, as a fault tells it.
pub(crate) fn told(error: &SecretError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}

/// What is wrong with a file that is only read, such as a certificate.
pub(crate) fn check_readable(path: &Path) -> Result<(), String> {
    read_up_to(path, 1).map(drop).map_err(|source| {
        format!(
            "{} cannot be read ({source}); let it exist and be readable for the user who runs understudy",
            path.display()
        )
    })
}

/// What is wrong with an engine's program, or the folder it is in.
pub(crate) fn check_program(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match fs::metadata(path) {
        Err(source) => Err(format!("{shown} cannot be found ({source}); name the server's program, or its folder")),
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 == 0 => {
            Err(format!("{shown} is no program: it may not be executed; name the server's program, or its folder"))
        }
        Ok(_) => Ok(()),
    }
}

/// Reads a configuration file as text; its error says what is wrong with the file as a whole.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let bytes = read_up_to(path, FILE_BYTES + 1).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => "there is no such file; name an agent.toml or proxy.toml".to_owned(),
        _ => format!("cannot be read ({source}); name a readable agent.toml or proxy.toml"),
    })?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(format!("is longer than {FILE_BYTES} bytes; this is no agent.toml or proxy.toml"));
    }
    let text = String::from_utf8(bytes).map_err(|_| NOT_TEXT.to_owned())?;
    if text.contains('\0') {
        return Err(NOT_TEXT.to_owned());
    }
    if text.trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']).is_empty() {
        return Err("is empty; docs/configuration.md shows what to write".to_owned());
    }
    Ok(text)
}

/// A file with a thousand instances is half as long; what is longer was not written for us.
const FILE_BYTES: u64 = 256 * 1024;

const NOT_TEXT: &str = "is not text in UTF-8; name an agent.toml or proxy.toml";

fn read_up_to(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    // Opening a folder succeeds, and only reading says what it is; opening a pipe would wait for a writer.
    let kind = fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not an ordinary file"));
    }
    let mut content = Vec::new();
    File::open(path)?.take(bytes).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8], mode: u32) -> tempfile::TempPath {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_is_the_only_line() {
        for content in ["hunter2", "hunter2\n", "hunter2\r\n"] {
            let path = file(content.as_bytes(), 0o600);
            assert_eq!(read_secret(&path).unwrap().reveal(), "hunter2");
            check_secret(&path).unwrap();
        }
        for (content, why) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"a\nb\n", "more than one line"),
            (b"a\tb", "control character"),
            (b"\xff\xfe", "not text"),
            (&[b'a'; 4097], "longer than any"),
        ] {
            let message = read_secret(&file(content, 0o600)).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn a_secret_open_to_all_is_none() {
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o606, true), (0o602, true)] {
            let found = check_secret(&file(b"hunter2", mode));
            assert_eq!(matches!(found, Err(SecretError::Open { .. })), open, "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_file_of_ours_is_told_in_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let long = vec![b'#'; 256 * 1024 + 1];
        for (path, why) in [
            (folder.path().to_owned(), "it is a folder"),
            (missing, "no such file"),
            (file(b"", 0o600).keep().unwrap(), "is empty"),
            (file(b"\xef\xbb\xbf \n", 0o600).keep().unwrap(), "is empty"),
            (file(b"\x7fELF\x00\x01", 0o600).keep().unwrap(), "not text"),
            (file(b"\xff\xd8", 0o600).keep().unwrap(), "not text"),
            (file(&long, 0o600).keep().unwrap(), "is longer"),
            (PathBuf::from("/dev/null"), "not an ordinary file"),
        ] {
            let message = read_text(&path).unwrap_err();
            assert!(message.contains(why), "{message}");
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
    }

    #[test]
    fn a_program_is_executable_or_a_folder() {
        assert!(check_program(Path::new("/bin/sh")).is_ok());
        assert!(check_program(Path::new("/bin")).is_ok());
        assert!(check_program(&file(b"", 0o600)).unwrap_err().contains("may not be executed"));
        assert!(check_program(Path::new("/nowhere/redis-server")).unwrap_err().contains("cannot be found"));
    }
}
