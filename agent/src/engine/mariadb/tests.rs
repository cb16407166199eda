//! The engine on real servers, without a group around it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::config::InstanceConfig;
use election::{Address, EngineOp, Marker, Nonce, Position, Secret, ServerRole};
use sqlx::Connection as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};

use super::sql::Link;
use super::{Mariadb, files};
use crate::engine::testing::{self, LIMIT, Tested};
use crate::engine::{Engine, EngineError, Site};

type Node = testing::Node<Mariadb>;

impl Tested for Mariadb {
    const KIND: ::config::Engine = ::config::Engine::Mariadb;
    const LOG: &'static str = super::LOG;
    const SETTINGS: &'static [(&'static str, &'static str)] = &[("innodb_buffer_pool_size", "16M")];

    async fn open(config: &InstanceConfig, site: &Site) -> Result<Self, EngineError> {
        Mariadb::open(config, site).await
    }
}

impl Node {
    async fn started() -> Self {
        let mut node = Self::prepared();
        node.open().await.unwrap();
        node.apply(EngineOp::Start).await;
        node
    }

    /// A master that clients may write to.
    async fn master() -> Self {
        let mut node = Self::started().await;
        for op in [EngineOp::Promote, EngineOp::Mark(marker(1)), EngineOp::Open] {
            node.apply(op).await;
        }
        node
    }

    /// A connection of somebody who may do anything.
    async fn sql(&mut self) -> Link {
        let target = self.engine().target.clone();
        Link::open(&target).await.unwrap()
    }

    fn pid(&self) -> rustix::process::Pid {
        let run: serde_json::Value =
            serde_json::from_slice(&fs::read(self.dir.path().join("agent/g.run.json")).unwrap()).unwrap();
        rustix::process::Pid::from_raw(i32::try_from(run["pid"].as_i64().unwrap()).unwrap()).unwrap()
    }

    fn server(&self) -> PathBuf {
        self.config.data_dir.join(files::SERVER)
    }
}

/// A master, and a copy whose acknowledgement each of its commits waits for.
async fn pair() -> (Node, Node) {
    pair_with(&[]).await
}

/// The same, the copy with these settings.
async fn pair_with(settings: &[(&str, &str)]) -> (Node, Node) {
    let (mut source, mut node) = (Node::master().await, Node::prepared());
    node.config.settings.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    node.open().await.unwrap();
    node.apply(EngineOp::Start).await;
    let channel = EngineOp::Channel { name: Nonce::from("c"), secret: Secret::new("s"), exclusive: true };
    source.apply(channel).await;
    let to = format!(
        "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'understudy_c', MASTER_PASSWORD = 's', \
         MASTER_USE_GTID = slave_pos",
        source.config.port
    );
    let mut sql = node.sql().await;
    for statement in [to.as_str(), "START SLAVE"] {
        sql.run(statement).await.unwrap();
    }
    until("an acknowledgement", async || source.engine().apply(&EngineOp::Mark(marker(1))).await.ok()).await;
    (source, node)
}

fn marker(epoch: u64) -> Marker {
    Marker { uid: "u".into(), epoch, nonce: Nonce::from("n"), counter: 1 }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_new_server_boots_harmless_and_is_made_a_master_that_a_new_agent_finds() {
    let mut node = Node::started().await;
    let status = node.status().await;
    assert!(status.is_sealed() && status.empty && !status.open && status.fsync && status.persisted, "{status:?}");
    assert_eq!((status.marker.clone(), status.position, status.lineage.as_str()), (None, Position(0), ""));

    node.apply(EngineOp::Promote).await;
    let status = node.status().await;
    assert!(status.is_master() && !status.open && !status.guard && !status.need, "{status:?}");
    node.apply(EngineOp::Mark(marker(3))).await;
    let status = node.status().await;
    assert_eq!((status.marker.clone(), status.lineage.as_str()), (Some(marker(3)), "u"));
    assert_eq!(status.marked_at, Some(status.position));
    assert!(status.position > Position(0) && !status.empty);
    node.apply(EngineOp::Open).await;
    assert!(node.status().await.open);

    node.open().await.unwrap();
    let found = node.status().await;
    assert!(found.is_master() && found.open, "a new agent finds the master as it is");
    assert_eq!(found.incarnation, status.incarnation);
    node.apply(EngineOp::Fence).await;
    let fenced = node.status().await;
    assert!(fenced.is_sealed() && !fenced.open && fenced.incarnation == status.incarnation, "{fenced:?}");

    node.apply(EngineOp::Stop).await;
    assert!(matches!(node.engine().probe().await, election::Engine::Down { .. }));
    assert!(!files::ended_badly(&node.server()), "an orderly end leaves nothing to decide");
    node.apply(EngineOp::Start).await;
    let again = node.status().await;
    assert!(again.is_sealed() && again.marker == Some(marker(3)) && again.incarnation != status.incarnation);
}

/// As after a forced failover to a node that had just fetched a copy.
#[tokio::test]
async fn a_copy_that_was_fetched_does_not_replace_the_data_of_a_master() {
    let mut node = Node::started().await;
    fs::create_dir(node.config.data_dir.join(super::copy::WHOLE)).unwrap();
    for op in [EngineOp::Promote, EngineOp::Mark(marker(1)), EngineOp::Open] {
        node.apply(op).await;
    }
    node.apply(EngineOp::Stop).await;
    node.apply(EngineOp::Start).await;
    assert_eq!(node.status().await.marker, Some(marker(1)));
}

#[tokio::test]
async fn a_marker_never_hangs_and_a_master_whose_commits_wait_is_fenced_by_its_end() {
    let mut node = Node::master().await;
    node.apply(EngineOp::Need(true)).await;
    let status = node.status().await;
    assert!(status.need && status.guard);
    let begun = Instant::now();
    let next = Marker { counter: 2, ..marker(1) };
    let refused = node.engine().apply(&EngineOp::Mark(next)).await.unwrap_err();
    assert!(matches!(refused, EngineError::NoReplicas { .. }), "{refused}");
    assert!(begun.elapsed() < LIMIT / 2);
    assert!(node.engine().probe().await.status().is_some(), "the agent's own questions do not wait");

    node.apply(EngineOp::Fence).await;
    until("its end", async || matches!(node.engine().probe().await, election::Engine::Down { .. }).then_some(())).await;
    assert!(files::ended_badly(&node.server()));
}

/// Those that wait are disconnected when writes are to be held, and that lets their commits through.
#[tokio::test]
async fn a_master_that_let_commits_through_is_fenced_by_its_end() {
    let mut node = Node::master().await;
    node.sql().await.run("CREATE DATABASE app").await.unwrap();
    node.sql().await.run("CREATE TABLE app.t (id INT PRIMARY KEY) ENGINE = InnoDB").await.unwrap();
    node.apply(EngineOp::Need(true)).await;
    assert!(node.status().await.need);
    let options = MySqlConnectOptions::new().host("127.0.0.1").port(node.config.port).username("root");
    let mut client = MySqlConnection::connect_with(&options).await.unwrap();
    let write = tokio::spawn(async move { sqlx::raw_sql("INSERT INTO app.t VALUES (1)").execute(&mut client).await });
    let mut sql = node.sql().await;
    until("a commit that waits", async || {
        let said = sql.ask("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_wait_sessions'").await.unwrap();
        (said[0]["Value"] == "1").then_some(())
    })
    .await;
    node.apply(EngineOp::Quiesce { end: true }).await;
    assert!(write.await.unwrap().is_err(), "the client knows no outcome");

    node.apply(EngineOp::Fence).await;
    until("its end", async || matches!(node.engine().probe().await, election::Engine::Down { .. }).then_some(())).await;
    assert!(files::ended_badly(&node.server()), "its tail is looked at when it starts again");
}

/// To end the client of a write that waits for room leaves half an event in the log, which no copy gets past.
#[tokio::test]
async fn a_write_that_waits_for_room_is_ended_with_its_server() {
    let mut node = Node::master().await;
    node.sql().await.run("CREATE DATABASE app").await.unwrap();
    node.sql().await.run("CREATE TABLE app.t (id INT PRIMARY KEY) ENGINE = InnoDB").await.unwrap();
    node.engine().memo.out_of_room = true;
    assert!(!node.status().await.disk_ok, "there is room again, and nobody knows whether the server has seen it");
    node.apply(EngineOp::Mark(marker(1))).await;
    assert!(node.status().await.disk_ok, "it has written");

    node.engine().memo.out_of_room = true;
    let mut client = node.sql().await;
    client.run("LOCK TABLES app.t WRITE").await.unwrap();
    node.apply(EngineOp::Quiesce { end: true }).await;
    until("its end", async || matches!(node.engine().probe().await, election::Engine::Down { .. }).then_some(())).await;
    assert!(files::ended_badly(&node.server()), "its tail is looked at when it starts again");
}

#[tokio::test]
async fn a_source_that_is_frozen_holds_up_neither_the_seal_nor_the_promotion() {
    let (source, mut node) = pair().await;
    let mut sql = node.sql().await;
    // Whoever waits for the source now waits longer than an operation may.
    sql.run("SET GLOBAL rpl_semi_sync_slave_kill_conn_timeout = 3600").await.unwrap();
    let pid = source.pid();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    node.apply(EngineOp::Seal).await;
    assert!(node.status().await.is_sealed());
    for op in [EngineOp::Promote, EngineOp::Mark(marker(2)), EngineOp::Open] {
        node.apply(op).await;
    }
    let status = node.status().await;
    assert!(status.is_master() && status.open && status.marker == Some(marker(2)), "{status:?}");

    // When the thread ends (with the source gone, at the latest) what is left of it is forgotten, by a new agent as well.
    node.open().await.unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("the end of the link", async || {
        assert!(node.status().await.is_master());
        sql.ask("SHOW SLAVE STATUS").await.unwrap().is_empty().then_some(())
    })
    .await;
    node.apply(EngineOp::Fence).await;
    assert!(node.status().await.is_sealed());
}

#[tokio::test]
async fn a_copy_that_was_sealed_acknowledges_nothing() {
    let (mut source, mut node) = pair().await;
    node.apply(EngineOp::Seal).await;
    let refused = source.engine().apply(&EngineOp::Mark(Marker { counter: 2, ..marker(1) })).await.unwrap_err();
    assert!(matches!(refused, EngineError::NoReplicas { .. }), "{refused}");
    assert!(node.status().await.is_sealed());
}

/// The thread that hands out what several others apply says that it has read all as soon as it has handed it out.
#[tokio::test]
async fn what_several_threads_have_still_to_apply_is_waited_for() {
    const ROWS: u32 = 100;
    let (mut source, mut node) = pair_with(&[("slave_parallel_threads", "4")]).await;
    let (mut client, mut sql) = (source.sql().await, node.sql().await);
    client.run("SET SESSION sql_log_bin = 1").await.unwrap();
    client.run("CREATE DATABASE app").await.unwrap();
    client.run("CREATE TABLE app.t (id INT PRIMARY KEY) ENGINE = InnoDB").await.unwrap();
    sql.run("STOP SLAVE SQL_THREAD").await.unwrap();
    for id in 0..ROWS {
        client.run(format!("INSERT INTO app.t VALUES ({id})")).await.unwrap();
    }
    sql.run("START SLAVE SQL_THREAD").await.unwrap();
    node.apply(EngineOp::Seal).await;
    until("its promotion", async || node.engine().apply(&EngineOp::Promote).await.ok()).await;
    let rows = sql.ask("SELECT COUNT(*) AS n FROM app.t").await.unwrap();
    assert_eq!(rows[0]["n"], ROWS.to_string());
}

#[tokio::test]
async fn held_writes_wait_and_are_released() {
    let mut node = Node::master().await;
    let mut client = node.sql().await;
    client.run("SET SESSION sql_log_bin = 1").await.unwrap();
    client.run("CREATE DATABASE app").await.unwrap();
    client.run("CREATE TABLE app.t (id INT PRIMARY KEY) ENGINE = InnoDB").await.unwrap();
    node.apply(EngineOp::Quiesce { end: false }).await;
    let held = node.status().await;
    assert!(held.quiesced);
    let write = tokio::spawn(async move {
        client.run("SET SESSION lock_wait_timeout = 60").await.unwrap();
        client.run("INSERT INTO app.t VALUES (1)").await
    });
    assert!(matches!(node.engine().apply(&EngineOp::Mark(marker(1))).await, Err(EngineError::Held { .. })));
    assert_eq!(node.status().await.position, held.position, "nothing is written while writes are held");
    assert!(!write.is_finished());
    node.apply(EngineOp::Release).await;
    write.await.unwrap().unwrap();
    let status = node.status().await;
    assert!(!status.quiesced && status.open && status.position > held.position);
}

#[tokio::test]
async fn the_data_of_a_standalone_server_is_adopted() {
    let mut before = Node::master().await;
    let mut sql = before.sql().await;
    sql.run("CREATE DATABASE `mysql-data`").await.unwrap();
    sql.run("CREATE TABLE `mysql-data`.t (id INT PRIMARY KEY) ENGINE = InnoDB").await.unwrap();
    sql.run("INSERT INTO `mysql-data`.t VALUES (7)").await.unwrap();
    before.apply(EngineOp::Stop).await;

    let mut node = Node::prepared();
    fs::rename(before.server(), &node.config.data_dir).unwrap();
    node.open().await.unwrap();
    let election::Engine::Foreign { why } = node.engine().probe().await else { panic!("it must be foreign") };
    assert!(why.contains("adopt"), "{why}");
    node.config.adopt = true;
    node.open().await.unwrap();
    node.apply(EngineOp::Start).await;
    let status = node.status().await;
    assert!(status.is_sealed() && !status.empty, "{status:?}");
    let rows = node.sql().await.ask("SELECT id FROM `mysql-data`.t").await.unwrap();
    assert_eq!(rows[0]["id"], "7");
    let entries: Vec<_> = fs::read_dir(&node.config.data_dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!entries.iter().any(|name| name == "ibdata1"), "{entries:?}");
}

#[tokio::test]
async fn data_that_a_server_still_runs_on_is_not_adopted() {
    let mut before = Node::master().await;
    let mut node = Node::prepared();
    node.config.adopt = true;
    fs::rename(before.server(), &node.config.data_dir).unwrap();
    node.open().await.unwrap();
    let error = node.engine().apply(&EngineOp::Start).await.unwrap_err().to_string();
    assert!(error.contains("still runs on it") && error.contains("nothing was touched"), "{error}");
    assert!(node.config.data_dir.join("ibdata1").exists());
    before.apply(EngineOp::Kill).await;
    node.apply(EngineOp::Start).await;
    assert!(!node.status().await.empty);
}

#[tokio::test]
async fn a_path_may_hold_what_means_something_in_the_servers_file() {
    let mut node = Node::prepared();
    node.config.data_dir = node.dir.path().join("data #1 \"x\"");
    node.open().await.unwrap();
    node.apply(EngineOp::Start).await;
    assert!(node.status().await.is_sealed());
    assert!(node.server().join("ibdata1").exists());
}

#[tokio::test]
async fn a_folder_that_is_no_mariadbs_is_not_adopted() {
    let mut node = Node::prepared();
    node.config.adopt = true;
    fs::create_dir(&node.config.data_dir).unwrap();
    fs::write(node.config.data_dir.join("precious"), b"x").unwrap();
    node.open().await.unwrap();
    let error = node.engine().apply(&EngineOp::Start).await.unwrap_err().to_string();
    assert!(error.contains("data_dir") && error.contains("ibdata1"), "{error}");
    assert!(node.config.data_dir.join("precious").exists());
}

#[tokio::test]
async fn data_of_a_newer_version_or_another_owner_are_named_and_not_started() {
    let mut node = Node::master().await;
    node.apply(EngineOp::Kill).await;
    let written = node.server().join("mysql_upgrade_info");
    let version = fs::read(&written).unwrap();
    fs::write(&written, "99.1.0-MariaDB").unwrap();
    let error = node.engine().apply(&EngineOp::Start).await.unwrap_err().to_string();
    assert!(error.contains("was written by MariaDB 99.1") && error.contains("`bin`"), "{error}");
    fs::write(&written, version).unwrap();

    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(node.server()).unwrap());
    // Only root can give a folder away.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(node.server(), Some(0), None).unwrap();
        let error = node.engine().apply(&EngineOp::Start).await.unwrap_err().to_string();
        assert!(error.contains("number 0") && error.contains("`mysql`") && error.contains("chown"), "{error}");
        std::os::unix::fs::chown(node.server(), Some(owner), None).unwrap();
    }
    node.apply(EngineOp::Start).await;
    assert_eq!(node.status().await.marker, Some(marker(1)));
}

#[tokio::test]
async fn a_copy_that_was_not_finished_is_never_taken_for_data() {
    let mut node = Node::master().await;
    node.apply(EngineOp::Kill).await;
    let half = node.config.data_dir.join(super::copy::UNDER_WAY);
    fs::create_dir(&half).unwrap();
    fs::write(half.join("ibdata1"), b"half").unwrap();
    node.apply(EngineOp::Start).await;
    assert!(!half.exists());
    assert_eq!(node.status().await.marker, Some(marker(1)));
}

#[tokio::test]
async fn who_may_not_follow_is_told_why() {
    let mut node = Node::started().await;
    let source = Address::new("127.0.0.1", 1);
    let channel = Some((Nonce::from("c"), Secret::new("hunter2")));
    let error =
        node.engine().apply(&EngineOp::Follow { source, channel, replace: true }).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_refused() {
    let mut node = Node::prepared();
    node.config.data_dir = node.dir.path().join("x".repeat(100));
    let error = node.open().await.unwrap_err().to_string();
    assert!(error.contains("data_dir") && error.contains("socket"), "{error}");
}

#[tokio::test]
async fn a_server_says_what_it_is_at_the_moment_it_is_asked() {
    let mut node = Node::master().await;
    let asker = node.engine().asker().unwrap();
    assert_eq!(asker.role().await.unwrap(), ServerRole::Master);
    // By hand.
    node.sql().await.run("SET GLOBAL read_only = 1").await.unwrap();
    assert_eq!(asker.role().await.unwrap(), ServerRole::Copy);
    node.sql().await.run("SET GLOBAL read_only = 0").await.unwrap();
    assert_eq!(asker.role().await.unwrap(), ServerRole::Master);
    node.apply(EngineOp::Kill).await;
    asker.role().await.unwrap_err();
    node.apply(EngineOp::Start).await;
    assert_eq!(asker.role().await.unwrap(), ServerRole::Copy);
}
