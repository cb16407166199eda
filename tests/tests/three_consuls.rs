//! Three Consul servers: the leader is killed, two hang, an address never lived. Nobody changes roles for that, and the
//! master's death is noticed with two servers as with three. And a token without rights, which is told what it lacks.

use anyhow::{Context, Result};
use cli::rig::{Process, Writer, fixed, free_port, program, understudy_binary};
use election::{Phase, Record};
use rustix::process::Signal;
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use understudy_tests::real::{
    LIMIT, Lone, SWING, Server, Story, attached, build, info, leader, run, send, servers, start_unready, until,
};

/// Writes must not even falter while Consul elects; a busy machine may.
const FALTER: Duration = Duration::from_secs(3);

/// How long Consul has no majority.
const NO_MAJORITY: Duration = Duration::from_secs(8);

/// Three agents and a proxy that know of all three servers, and first of one that never lived.
struct Stage {
    // In this order: agents and proxy end before their Consul.
    nodes: Vec<Lone>,
    proxy: Proxy,
    servers: Vec<Server>,
    story: Story,
}

struct Proxy {
    _process: Process,
    at: SocketAddr,
}

async fn stage() -> Result<Stage> {
    let story = start_unready(build()?.nodes(0).proxies(0)).await?;
    let servers = servers(story.folder()).await?;
    let nobody = format!("http://127.0.0.1:{}", free_port()?);
    let all: Vec<String> = std::iter::once(nobody).chain(servers.iter().map(Server::address)).collect();
    let all = format!("\"{}\"", all.join("\", \""));
    let one = format!("\"{}\"", story.consul_address());
    let mut nodes = Vec::new();
    for name in ["db1", "db2", "db3"] {
        nodes.push(Lone::start(&story, name, |text| text.replace(&one, &all))?);
    }
    let proxy = proxy(&story, &all)?;
    Ok(Stage { nodes, proxy, servers, story })
}

fn proxy(story: &Story, consul: &str) -> Result<Proxy> {
    let folder = story.folder().join("lone-proxy");
    std::fs::create_dir_all(&folder)?;
    let (port, http, file) = (free_port()?, free_port()?, folder.join("proxy.toml"));
    let text = format!(
        "[proxy]\nname = \"proxy1\"\naddress = \"127.0.0.1\"\n\n[consul]\naddresses = [{consul}]\n\n\
         [http]\nlisten = \"127.0.0.1:{http}\"\n\n[[listener]]\nlisten = \"127.0.0.1:{port}\"\n\
         groups = [\"{group}\"]\nrole = \"master\"\nprotocol = \"tcp\"\n",
        group = story.group(),
    );
    std::fs::write(&file, text)?;
    let args = [Path::new("proxy"), Path::new("--config"), &file];
    let process = Process::start("proxy", &understudy_binary()?, args, &folder, &folder.join("log"))?;
    Ok(Proxy { _process: process, at: SocketAddr::from(([127, 0, 0, 1], port)) })
}

/// Who plays what: places among the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Roles {
    epoch: u64,
    master: usize,
    hot: usize,
}

impl Stage {
    /// Waits until all three agents are well and agree on the record.
    async fn roles(&self) -> Result<Roles> {
        until("a whole group", async || {
            let mut seen: Vec<Record> = Vec::new();
            for node in &self.nodes {
                let said = node.status().await?;
                anyhow::ensure!(said.healthy && said.phase == Some(Phase::Active), "{}", said.reason);
                seen.push(said.record.context("no record")?);
            }
            anyhow::ensure!(seen.iter().all(|r| r.stamp() == seen[0].stamp()), "they do not agree");
            let record = seen.remove(0);
            let place = |id: &str| id.trim_start_matches("db").parse::<usize>().map(|number| number - 1);
            let master = place(record.master.context("no master")?.id.as_str())?;
            let hot = place(record.replica.context("no hot replica")?.id.as_str())?;
            anyhow::ensure!(attached(self.redis(master)).await? == [self.nodes[hot].port], "not yet attached");
            Ok(Some(Roles { epoch: record.epoch, master, hot }))
        })
        .await
    }

    fn redis(&self, node: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.nodes[node].port))
    }

    async fn client(&self) -> Result<Writer> {
        let writer = self.story.writer_by("three", fixed(self.proxy.at));
        writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
        Ok(writer)
    }

    fn kill_database(&self, node: usize) -> Result<Instant> {
        let note = self.nodes[node].folder.join("agent").join(format!("{}.run.json", self.story.group()));
        let note: serde_json::Value = serde_json::from_slice(&std::fs::read(note)?)?;
        let at = Instant::now();
        send(u32::try_from(note["pid"].as_u64().context("no pid")?)?, Signal::KILL)?;
        Ok(at)
    }

    /// At every look for `time` the databases have the roles they had.
    async fn nothing_changes(&self, roles: &Roles, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for node in 0..self.nodes.len() {
                let info = info(self.redis(node), "replication").await?;
                let wanted = if node == roles.master { "master" } else { "slave" };
                anyhow::ensure!(info.get("role").is_some_and(|role| role == wanted), "{node} is not {wanted}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// All that the agents have logged, for a failure's report.
    fn logs(&self) -> String {
        self.nodes.iter().map(|node| node.log().unwrap_or_default()).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

#[tokio::test]
async fn servers_hang_and_die_and_only_the_masters_death_changes_its_place() -> Result<()> {
    let mut stage = stage().await?;
    let before = stage.roles().await?;
    let mut writer = stage.client().await?;

    // No majority: two of three hang.
    let leading = leader(&stage.servers).await?;
    let others: Vec<usize> = (0..3).filter(|n| *n != leading).collect();
    let since = Instant::now();
    others.iter().for_each(|n| stage.servers[*n].process.freeze());
    stage.nothing_changes(&before, NO_MAJORITY).await?;
    others.iter().for_each(|n| stage.servers[*n].process.thaw());
    let leading = leader(&stage.servers).await?;
    assert_eq!(stage.roles().await?, before, "a minority's word is not enough");

    // The leader dies for good.
    drop(stage.servers.remove(leading));
    leader(&stage.servers).await?;
    assert_eq!(stage.roles().await?, before, "a new leader of Consul's is no takeover");
    writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
    let gap = writer.longest_gap(since).context("no writes")?;
    assert!(gap < FALTER, "writes stood still for {gap:?}");

    // The group is as able as before.
    let died = stage.kill_database(before.master)?;
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    let after = stage.roles().await?;
    assert_eq!((after.master, after.epoch), (before.hot, before.epoch + 1));
    writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
    writer.stop();
    assert_eq!(writer.missing(stage.proxy.at).await?.len(), 0);
    Ok(())
}

/// A server that refuses what no token allows, and a token that may read the group and no more.
async fn guarded(story: &Story) -> Result<(Process, String, String)> {
    let (http, server, lan, root) = (free_port()?, free_port()?, free_port()?, "3f0f2b3e-7f0c-4b7e-9a53-0a4c3a3d9b11");
    let home = story.folder().join("guarded");
    std::fs::create_dir_all(&home)?;
    let acl = json!({ "enabled": true, "default_policy": "deny", "tokens": { "master": root, "agent": root } });
    std::fs::write(home.join("settings.json"), json!({ "acl": acl }).to_string())?;
    let words = format!(
        "agent -dev -config-file settings.json -bind 127.0.0.1 -http-port {http} -server-port {server} \
         -serf-lan-port {lan} -serf-wan-port -1 -dns-port -1 -grpc-port -1 -log-level warn"
    );
    let consul = program("consul").context("no consul")?;
    let process = Process::start("guarded", &consul, words.split_whitespace(), &home, &home.join("log"))?;
    let address = format!("http://127.0.0.1:{http}");
    let put = async |path: &str, body: serde_json::Value| -> Result<serde_json::Value> {
        let request = cli::rig::http().put(format!("{address}/v1/acl/{path}")).header("X-Consul-Token", root);
        Ok(request.json(&body).send().await?.error_for_status()?.json().await?)
    };
    let rules = "key_prefix \"understudy/\" { policy = \"read\" }";
    until("a policy", async || Ok(Some(put("policy", json!({ "Name": "reader", "Rules": rules })).await?))).await?;
    let token = put("token", json!({ "Policies": [{ "Name": "reader" }] })).await?;
    Ok((process, address, token["SecretID"].as_str().context("no token")?.to_owned()))
}

#[tokio::test]
async fn a_token_without_rights_is_told_which_one_is_missing() -> Result<()> {
    let story = start_unready(build()?.nodes(0).proxies(0)).await?;
    let (_guarded, address, secret) = guarded(&story).await?;
    let file = story.folder().join("token");
    std::fs::write(&file, &secret)?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let one = format!("addresses = [\"{}\"]", story.consul_address());
    let other = format!("addresses = [\"{address}\"]\ntoken_file = \"{}\"", file.display());
    let lone = Lone::start(&story, "db1", |text| text.replace(&one, &other))?;
    let right = "the token needs the rule session_prefix";
    until("the missing right in the log", async || {
        let log = lone.log()?;
        anyhow::ensure!(log.contains(right), "{log}");
        Ok(Some(()))
    })
    .await?;
    // Without any token, the command line is told as much.
    let told = run(&["status", story.group(), "--consul", &address])?;
    told.refused(1, &["the token needs the rule key_prefix \"understudy/", "{ policy = \"read\" }"])?;
    let said = lone.status().await?;
    assert!(!said.healthy && said.record.is_none(), "a group was begun without the right to: {}", said.reason);
    assert!(!lone.log()?.contains(&secret), "the token stands in the log");
    Ok(())
}
