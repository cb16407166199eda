//! The `postgres` protocol: a server's messages are read just enough to keep its promises.
//!
//! A success that follows a cancelled wait for the standby is not passed on (the connection is reset: its outcome is not
//! known to be safe). A server that says at login that it is not what the record says is not handed a client. A request to
//! cancel a query goes to the server that runs it.

pub(crate) mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod opening;

use crate::routes::Endpoint;
use config::ListenerRole;
use frames::{Frames, NotPostgres, Word};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where requests to cancel go: for the connections that a listener carries, by their keys.
#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<HashMap<Vec<u8>, Arc<Endpoint>>>);

impl Keys {
    /// The server that gave this key to a connection carried here.
    pub(crate) fn find(&self, key: &[u8]) -> Option<Arc<Endpoint>> {
        self.lock().get(key).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<Endpoint>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens to one server on behalf of one client.
pub(crate) struct Listening<'a> {
    frames: Frames,
    role: ListenerRole,
    keys: &'a Keys,
    endpoint: Arc<Endpoint>,
    key: Option<Vec<u8>>,
}

impl<'a> Listening<'a> {
    pub(crate) fn new(role: ListenerRole, keys: &'a Keys, endpoint: Arc<Endpoint>) -> Self {
        Self { frames: Frames::default(), role, keys, endpoint, key: None }
    }

    /// What the server said next.
    ///
    /// # Errors
    /// Why none of it may be passed on.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Result<(), Breach> {
        let (mut breach, mut key) = (None, None);
        let is_master = self.role == ListenerRole::Master;
        self.frames.read(bytes, |word| match word {
            Word::Unreplicated => breach = Some(Breach::Unreplicated),
            Word::Standby(standby) if standby == is_master => breach = Some(Breach::OtherRole { standby }),
            Word::Standby(_) => {}
            Word::Key(bytes) => key = Some(bytes),
        })?;
        if let Some(key) = key {
            self.keys.lock().insert(key.clone(), self.endpoint.clone());
            self.key = Some(key);
        }
        breach.map_or(Ok(()), Err)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.keys.lock().remove(key);
        }
    }
}

/// Why a connection is not carried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    /// A commit was answered, or will be, although the standby may not have it.
    #[error("a commit stopped waiting for the hot replica; whether it survives a failover is not known")]
    Unreplicated,
    /// The server says that it is not what the record says.
    #[error("the server says that it is {}", if *standby { "a standby, not the master" } else { "no standby" })]
    OtherRole {
        /// Whether it says that it is a standby.
        standby: bool,
    },
    /// It is no PostgreSQL.
    #[error(transparent)]
    NotPostgres(#[from] NotPostgres),
}

/// An error that a client can show, with which a connection ends: `cannot_connect_now`, after which clients try again.
pub(crate) fn refusal(text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C57P03\0Munderstudy: {text}\0\0").as_bytes())
}

/// A message of a server.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint { id: "db1".into(), address: "127.0.0.1".into(), port: 5432 })
    }

    #[test]
    fn a_server_in_the_other_role_is_not_handed_a_client() {
        let keys = Keys::default();
        for (role, value, fine) in [
            (ListenerRole::Master, "off", true),
            (ListenerRole::Master, "on", false),
            (ListenerRole::Replica, "on", true),
            (ListenerRole::Replica, "off", false),
        ] {
            let mut listening = Listening::new(role, &keys, endpoint());
            let status = message(b'S', format!("in_hot_standby\0{value}\0").as_bytes());
            assert_eq!(listening.hear(&status).is_ok(), fine, "{role:?} {value}");
        }
    }

    #[test]
    fn a_key_is_known_while_its_connection_lives() {
        let keys = Keys::default();
        let mut listening = Listening::new(ListenerRole::Master, &keys, endpoint());
        listening.hear(&message(b'K', b"pid key")).expect("no breach");
        assert_eq!(keys.find(b"pid key"), Some(endpoint()));
        assert_eq!(keys.find(b"other"), None);
        drop(listening);
        assert_eq!(keys.find(b"pid key"), None);
    }
}
