//! The three accounts of an instance: who may do what, as ACL rules.
//!
//! `default` is what clients log in as; `understudy` is the agent; `understudy-repl` is what replicas log in as, with a
//! password that exists only while a channel is in force. Passwords stand in the generated file as hashes.

use sha2::{Digest, Sha256};

/// The clients' account.
pub(super) const CLIENTS: &str = "default";

/// The agent's own account.
pub(super) const AGENT: &str = "understudy";

/// The account that replicas log in with.
pub(super) const REPLICATION: &str = "understudy-repl";

/// What a replica sends to its source (Redis 7.0): nothing else is needed for a full or a partial resync.
pub(super) const REPLICATION_RULES: [&str; 3] = ["+ping", "+replconf", "+psync"];

/// What clients may do while they are let in: all but what decides who replicates from whom, what would stop the
/// process, and what would undo the agent's own settings.
const OPEN: &[&str] = &[
    "+@all",
    // Roles belong to the agent.
    "-replicaof",
    "-slaveof",
    "-failover",
    "-cluster",
    // A client that passes for a replica would acknowledge writes that it does not keep.
    "-psync",
    "-sync",
    "-replconf",
    // Stops, crashes or changes the process.
    "-shutdown",
    "-debug",
    "-module",
    // Would put the user's data where the marker is.
    "-swapdb",
    // Accounts and settings.
    "-acl",
    "+acl|whoami",
    "+acl|cat",
    "+acl|genpass",
    // `CONFIG GET masterauth` would give away the channel's password: who has it can pass for the hot replica.
    "-config",
    "+config|resetstat",
    "+config|help",
    // Holding writes is a step of a planned switchover.
    "-client|pause",
    "-client|unpause",
];

/// What is taken from them as well while they are not. Inside scripts and functions too: Redis checks each call.
const CLOSED: &str = "-@write";

/// The rules for the clients' account that let them write or do not. Each set replaces the one before it as a whole.
pub(super) fn client_rules(open: bool) -> Vec<&'static str> {
    let closed = (!open).then_some(CLOSED);
    OPEN.iter().copied().chain(closed).collect()
}

/// The `user` lines of the generated file: clients closed out, replicas locked out.
pub(super) fn user_lines(clients: Option<&str>, agent: &str) -> [String; 3] {
    let login = clients.map_or_else(|| "nopass".to_owned(), |password| format!("#{}", hash(password)));
    [
        format!("user {CLIENTS} on {login} ~* &* {}", client_rules(false).join(" ")),
        format!("user {AGENT} on #{} ~* &* +@all", hash(agent)),
        format!("user {REPLICATION} off resetpass -@all"),
    ]
}

/// A password as Redis keeps it.
fn hash(password: &str) -> String {
    Sha256::digest(password.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_stands_in_the_file() {
        let lines = user_lines(Some("hunter2 \"x"), "agent").join("\n");
        assert!(!lines.contains("hunter2"));
        assert!(
            user_lines(Some("a"), "b")[0].contains("ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb")
        );
        assert!(user_lines(None, "b")[0].starts_with("user default on nopass "));
    }

    #[test]
    fn boot_is_closed_and_open_differs_by_one_rule() {
        let closed = client_rules(false);
        assert!(user_lines(None, "b")[0].ends_with(&closed.join(" ")));
        assert_eq!(closed[..closed.len() - 1], client_rules(true)[..]);
        assert_eq!(closed.last(), Some(&"-@write"));
    }
}
