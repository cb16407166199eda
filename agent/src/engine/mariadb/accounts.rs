//! The accounts of an instance, and the statements that a server runs before it takes its first connection.
//!
//! `understudy` is the agent, on this machine only; `understudy_…` is what replicas log in as, one account for each
//! channel, so that a link tells under which password it was made; `root` is the clients' administrator. They are set up
//! on each server by itself and never replicated: a copy brings its source's along, and they are replaced at its start.

use election::{Nonce, Secret};

use super::sql::literal;

/// The agent's own account, at `localhost`: the server's unix socket.
pub(super) const AGENT: &str = "understudy";

/// What the names of the replicas' accounts begin with; the channel's name follows.
pub(super) const REPLICA: &str = "understudy_";

/// The clients' administrator.
pub(super) const CLIENTS: &str = "root";

/// What the clients' administrator may do: everything with data, schemas and accounts, and nothing that decides about
/// roles, acknowledgements or the binary log (SUPER, BINLOG ADMIN, CONNECTION ADMIN, READ_ONLY ADMIN, the replication
/// privileges), that destroys the log (RELOAD: `RESET MASTER`) or that leaves the database (FILE, SHUTDOWN).
const CLIENT_PRIVILEGES: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, \
     CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, \
     TRIGGER, CREATE USER, PROCESS, SHOW DATABASES, BINLOG MONITOR, SLAVE MONITOR";

/// Where clients without a password may come from.
const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

/// The account of a channel. The name is random text of our own making; what is not a letter or digit is left out.
pub(super) fn replica(channel: &Nonce) -> String {
    let name: String = channel.as_str().chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    format!("{REPLICA}{name}")
}

/// The statements of the server's `init_file`, a line each.
///
/// `clients` is the password of `password_file`. `fresh`: the data was just made here and nobody has an account yet.
pub(super) fn init_file(agent: &Secret, clients: Option<&Secret>, fresh: bool) -> String {
    let mut lines = vec![
        "SET SESSION sql_log_bin = 0".to_owned(),
        "SET SESSION sql_log_off = 1".to_owned(),
        "SET SESSION sql_mode = ''".to_owned(),
        // Whoever knew a password of the run before is locked out: nobody replicates from a server that just booted.
        format!("DELETE FROM mysql.global_priv WHERE User LIKE {}", literal("understudy\\_%")),
    ];
    if clients.is_some() {
        let hosts = LOOPBACK.map(literal).join(", ");
        lines.push(format!(
            "DELETE FROM mysql.global_priv WHERE User = {} AND Host IN ({hosts}) \
             AND IFNULL(JSON_VALUE(Priv, '$.authentication_string'), '') = ''",
            literal(CLIENTS)
        ));
    }
    lines.push("FLUSH LOCAL PRIVILEGES".to_owned());
    let agent_account = account(AGENT, "localhost");
    lines.push(format!("CREATE USER IF NOT EXISTS {agent_account}"));
    lines.push(format!("ALTER USER {agent_account} IDENTIFIED BY {}", literal(agent.reveal())));
    lines.push(format!("GRANT ALL PRIVILEGES ON *.* TO {agent_account} WITH GRANT OPTION"));
    match clients {
        Some(password) => {
            let everywhere = account(CLIENTS, "%");
            lines.push(format!("CREATE USER IF NOT EXISTS {everywhere}"));
            lines.push(format!("ALTER USER {everywhere} IDENTIFIED BY {}", literal(password.reveal())));
            lines.push(grant(&everywhere));
        }
        None if fresh => {
            for host in LOOPBACK {
                lines.push(format!("CREATE USER IF NOT EXISTS {}", account(CLIENTS, host)));
                lines.push(grant(&account(CLIENTS, host)));
            }
        }
        None => {}
    }
    lines.iter().map(|line| format!("{line};\n")).collect()
}

fn grant(account: &str) -> String {
    format!("GRANT {CLIENT_PRIVILEGES} ON *.* TO {account} WITH GRANT OPTION")
}

fn account(user: &str, host: &str) -> String {
    format!("{}@{}", literal(user), literal(host))
}

/// The statements that make the account of a channel, for a session that does not write the binary log.
pub(super) fn open_channel(channel: &Nonce, secret: &Secret) -> [String; 2] {
    let account = account(&replica(channel), "%");
    [
        format!("CREATE OR REPLACE USER {account} IDENTIFIED BY {}", literal(secret.reveal())),
        format!("GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO {account}"),
    ]
}

/// The statement that removes an account of a replica.
pub(super) fn close_channel(user: &str) -> String {
    format!("DROP USER IF EXISTS {}", account(user, "%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_is_one_line() {
        let file = init_file(&Secret::new("a\nb"), Some(&Secret::new("it's")), true);
        assert!(file.lines().all(|line| line.ends_with(';')), "{file}");
        assert!(file.contains("IDENTIFIED BY 'it\\'s'") && file.contains("IDENTIFIED BY 'a\\nb'"));
    }

    #[test]
    fn clients_without_a_password_come_from_loopback_and_only_into_data_made_here() {
        let fresh = init_file(&Secret::new("a"), None, true);
        assert!(fresh.contains("'root'@'127.0.0.1'") && !fresh.contains("'root'@'%'"));
        assert!(!init_file(&Secret::new("a"), None, false).contains("CREATE USER IF NOT EXISTS 'root'"));
    }

    #[test]
    fn clients_cannot_undo_what_the_agent_sets() {
        for privilege in ["SUPER", "ADMIN", "RELOAD", "SHUTDOWN", "FILE", "ALL PRIVILEGES"] {
            assert!(!CLIENT_PRIVILEGES.contains(privilege), "{privilege}");
        }
    }

    #[test]
    fn a_channel_names_its_account() {
        assert_eq!(replica(&Nonce::from("0f-1'e")), "understudy_0f1e");
    }
}
