//! Three Consul servers of a test's own, that elect within seconds.

use super::until;
use anyhow::{Context, Result, ensure};
use cli::rig::{Process, free_port, http, program};
use serde_json::json;
use std::path::Path;

/// A server of three. Dropped, it is killed.
pub struct Server {
    /// Its process.
    pub process: Process,
    http: u16,
    raft: u16,
}

impl Server {
    /// Where it answers, `http://host:port`.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }
}

/// Starts three servers in `folder` and waits until they have a leader.
///
/// # Errors
/// When they do not get there.
pub async fn servers(folder: &Path) -> Result<Vec<Server>> {
    cli::install_tls_provider();
    let mut ports = Vec::new();
    for _ in 0..3 {
        ports.push((free_port()?, free_port()?, free_port()?));
    }
    let join: Vec<String> = ports.iter().map(|(_, _, lan)| format!("127.0.0.1:{lan}")).collect();
    let consul = program("consul").context("no consul")?;
    let mut servers = Vec::new();
    for (number, (http, raft, lan)) in ports.into_iter().enumerate() {
        let home = folder.join(format!("server{number}"));
        std::fs::create_dir_all(&home)?;
        let settings = json!({
            "server": true, "bootstrap_expect": 3, "node_name": format!("server{number}"), "data_dir": home.join("data"),
            "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "retry_join": join, "retry_interval": "1s",
            "ports": { "http": http, "server": raft, "serf_lan": lan, "serf_wan": -1, "dns": -1, "grpc": -1 },
            "performance": { "raft_multiplier": 1 }, "log_level": "warn", "disable_update_check": true,
        });
        std::fs::write(home.join("settings.json"), settings.to_string())?;
        let args = ["agent", "-config-file", "settings.json"];
        let process = Process::start("server", &consul, args, &home, &home.join("log"))?;
        servers.push(Server { process, http, raft });
    }
    leader(&servers).await?;
    Ok(servers)
}

/// Waits until all living servers agree on one leader, which is one of them; its place among them.
///
/// # Errors
/// When they do not.
pub async fn leader(servers: &[Server]) -> Result<usize> {
    until("one leader", async || {
        let mut named = Vec::new();
        for server in servers {
            let url = format!("{}/v1/status/leader", server.address());
            let text: String = http().get(url).send().await?.error_for_status()?.json().await?;
            named.push(servers.iter().position(|s| text.ends_with(&format!(":{}", s.raft))));
        }
        ensure!(named.iter().all(|n| n.is_some() && *n == named[0]), "{named:?}");
        Ok(named[0])
    })
    .await
}
