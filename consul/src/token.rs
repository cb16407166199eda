//! The ACL token: given by the environment, or read from a file and read again whenever that file changes.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use config::ConsulConfig;
use election::Secret;

use crate::error::Error;

/// Where the token comes from.
pub(crate) enum Token {
    Absent,
    Given(Secret),
    File { path: PathBuf, known: Mutex<Known> },
}

/// What was last read, and the state of the file it was read from.
pub(crate) struct Known {
    token: Secret,
    version: Option<(SystemTime, u64)>,
}

impl Token {
    /// Fails when the file cannot be read now; later failures keep the last token.
    pub(crate) fn new(settings: &ConsulConfig) -> Result<Self, Error> {
        if let Some(token) = &settings.token {
            return Ok(Token::Given(token.clone()));
        }
        let Some(path) = settings.token_file.clone() else {
            return Ok(Token::Absent);
        };
        let version = version(&path);
        let token = read(&path).map_err(|why| Error::File { key: "token_file", file: path.clone(), why })?;
        Ok(Token::File { path, known: Mutex::new(Known { token, version }) })
    }

    /// The token to send now.
    pub(crate) fn current(&self) -> Option<Secret> {
        match self {
            Token::Absent => None,
            Token::Given(token) => Some(token.clone()),
            Token::File { path, known } => {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                let now = version(path);
                if now.is_some() && now != known.version {
                    // Remembered even when the read fails, so that a bad file is reported once and not per request.
                    known.version = now;
                    match read(path) {
                        Ok(token) => known.token = token,
                        Err(why) => tracing::warn!(file = %path.display(), why, "keeping the last Consul token"),
                    }
                }
                Some(known.token.clone())
            }
        }
    }
}

fn version(path: &PathBuf) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn read(path: &PathBuf) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let token = text.trim();
    if token.is_empty() {
        return Err("it is empty; it must hold the token alone".to_owned());
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it holds more than one word; it must hold the token alone".to_owned());
    }
    Ok(Secret::new(token))
}
