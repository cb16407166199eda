//! The operations against real Redis processes.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::config::InstanceConfig;
use election::{Address, Engine as Seen, EngineOp, EngineRole, Marker, Nonce, Secret, Status};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisConnectionInfo, RedisError};
use rustix::process::{Pid, Signal, kill_process};

use super::Redis;
use crate::engine::testing::{self, LIMIT, Tested, free_port};
use crate::engine::{Engine, EngineError, Life, Site};

type Node = testing::Node<Redis>;

impl Tested for Redis {
    const KIND: ::config::Engine = ::config::Engine::Redis;
    const LOG: &'static str = super::LOG;

    async fn open(config: &InstanceConfig, site: &Site) -> Result<Self, EngineError> {
        Redis::open(config, site).await
    }
}

impl Node {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        let mut node = Self::prepared();
        node.config.settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        node.open().await.unwrap();
        node
    }

    async fn started(settings: &[(&str, &str)]) -> Self {
        let mut node = Self::with(settings).await;
        node.apply(EngineOp::Start).await;
        node
    }

    /// A master that clients may write to.
    async fn master() -> Self {
        let mut node = Self::started(&[]).await;
        node.apply(EngineOp::Promote).await;
        node.apply(EngineOp::Open).await;
        node
    }

    async fn refuses(&mut self, op: EngineOp) -> EngineError {
        self.engine().apply(&op).await.unwrap_err()
    }

    fn pid(&self) -> u32 {
        match &*self.engine.as_ref().unwrap().exited().borrow() {
            Life::Running { pid, .. } => *pid,
            Life::Down { why } => panic!("not running: {why}"),
        }
    }

    async fn client(&self) -> MultiplexedConnection {
        self.login(RedisConnectionInfo::default()).await.unwrap()
    }

    async fn login(&self, login: RedisConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
        let info = ("127.0.0.1", self.config.port).into_connection_info()?.set_redis_settings(login);
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(LIMIT)).set_response_timeout(Some(LIMIT));
        Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Gives the password `name` out to `replica`, and has it follow.
    async fn feed(&mut self, replica: &mut Node, name: &str) {
        self.apply(channel(name, false)).await;
        replica.apply(follow(self.address(), name)).await;
    }

    async fn stat(&mut self, key: &str) -> i64 {
        let mut commands = redis::pipe();
        commands.cmd("INFO").arg("stats");
        let answers = self.engine().link().await.unwrap().run(&commands).await.unwrap();
        let text: String = redis::from_redis_value(answers.into_iter().next().unwrap()).unwrap();
        super::probe::Info::read(&text).number(key)
    }

    /// A command of the agent's own account.
    async fn own(&mut self, words: &[&str]) -> Result<(), RedisError> {
        let mut commands = redis::pipe();
        commands.cmd(words[0]).arg(&words[1..]);
        self.engine().link().await?.run(&commands).await.map(drop)
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}

fn channel(name: &str, exclusive: bool) -> EngineOp {
    EngineOp::Channel { name: Nonce::from(name), secret: Secret::new(format!("secret-{name}")), exclusive }
}

fn follow(source: Address, name: &str) -> EngineOp {
    EngineOp::Follow {
        source,
        channel: Some((Nonce::from(name), Secret::new(format!("secret-{name}")))),
        replace: true,
    }
}

fn marker(counter: u64) -> Marker {
    Marker { uid: "uid".into(), epoch: 3, nonce: Nonce::from("n"), counter }
}

fn linked(status: &Status) -> bool {
    matches!(&status.role, EngineRole::Follows { link_up: true, syncing: false, .. }) && !status.loading
}

fn is_down(seen: &Seen) -> bool {
    matches!(seen, Seen::Down { .. })
}

async fn set(client: &mut MultiplexedConnection, key: &str, value: &str) -> Result<(), RedisError> {
    redis::cmd("SET").arg(key).arg(value).query_async(client).await
}

async fn get(client: &mut MultiplexedConnection, key: &str) -> Option<String> {
    redis::cmd("GET").arg(key).query_async(client).await.unwrap()
}

fn code(result: Result<(), RedisError>) -> String {
    result.err().and_then(|e| e.code().map(str::to_owned)).unwrap_or_default()
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut wanted: impl FnMut() -> F) {
    let end = Instant::now() + LIMIT;
    while !wanted().await {
        assert!(Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn copy(from: PathBuf, to: PathBuf) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

#[tokio::test]
async fn it_boots_sealed_and_closed() {
    let mut node = Node::new().await;
    assert!(is_down(&node.engine().probe().await));
    assert!(matches!(node.refuses(EngineOp::Seal).await, EngineError::NotRunning { .. }));
    node.apply(EngineOp::Start).await;
    let status = node.status().await;
    assert_eq!(status.role, EngineRole::Sealed);
    assert!(!status.open && status.empty && status.persisted && status.need);
    assert!(!status.guard && !status.fsync && !status.quiesced && status.channel.is_none());
    assert_eq!(status.version, node.engine().version());
    let mut client = node.client().await;
    assert_eq!(code(set(&mut client, "a", "1").await), "NOPERM");
    // Even with every right, a replica takes no writes.
    assert_eq!(code(node.own(&["SET", "a", "1"]).await), "READONLY");
    node.apply(EngineOp::Start).await;
    assert_eq!(node.status().await.incarnation, status.incarnation, "a second start does nothing");
}

#[tokio::test]
async fn data_that_is_not_ours_takes_no_part_and_is_not_touched() {
    let mut node = Node::prepared();
    std::fs::create_dir_all(&node.config.data_dir).unwrap();
    let dump = node.config.data_dir.join("dump.rdb");
    std::fs::write(&dump, b"precious").unwrap();
    node.open().await.unwrap();
    let Seen::Foreign { why } = node.engine().probe().await else { panic!("must be foreign") };
    assert!(why.contains("dump.rdb") && why.contains("adopt"), "{why}");
    assert!(matches!(node.refuses(EngineOp::Start).await, EngineError::Foreign { .. }));
    assert_eq!(std::fs::read(&dump).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(&node.config.data_dir).unwrap().count(), 1, "nothing may be added");
}

#[tokio::test]
async fn what_cannot_work_is_said_before_anything_runs() {
    let mut node = Node::prepared();
    node.config.bin = Some(node.dir.path().join("no-such"));
    assert!(matches!(node.open().await.unwrap_err(), EngineError::ProgramMissing { .. }));
    node.config.bin = None;

    node.config.password_file = Some(node.dir.path().join("password"));
    let error = node.open().await.unwrap_err().to_string();
    assert!(error.contains("password_file") && error.contains("cannot be read"), "{error}");
    std::fs::write(node.dir.path().join("password"), "\n").unwrap();
    let error = node.open().await.unwrap_err().to_string();
    assert!(error.contains("is empty"), "{error}");
    node.config.password_file = None;

    std::fs::write(&node.config.data_dir, b"a file").unwrap();
    let error = node.open().await.unwrap_err().to_string();
    assert!(error.contains("is not a folder"), "{error}");
}

#[tokio::test]
async fn the_password_of_the_file_is_the_clients() {
    let mut node = Node::prepared();
    let file = node.dir.path().join("password");
    std::fs::write(&file, "sesame \"open\"\n").unwrap();
    node.config.password_file = Some(file);
    node.open().await.unwrap();
    node.apply(EngineOp::Start).await;
    let none: Result<String, _> =
        redis::cmd("PING").query_async(&mut node.login(RedisConnectionInfo::default()).await.unwrap()).await;
    assert_eq!(none.unwrap_err().code(), Some("NOAUTH"));
    assert!(node.login(RedisConnectionInfo::default().set_password("wrong")).await.is_err());
    let mut client = node.login(RedisConnectionInfo::default().set_password("sesame \"open\"")).await.unwrap();
    assert_eq!(get(&mut client, "a").await, None);
    let generated = std::fs::read_to_string(node.site.data_dir.join("g.redis.conf")).unwrap();
    assert!(!generated.contains("sesame"));
}

#[tokio::test]
async fn a_restarted_agent_finds_its_database() {
    let mut node = Node::master().await;
    node.apply(channel("one", false)).await;
    let before = node.status().await;
    let pid = node.pid();
    node.open().await.unwrap();
    let after = node.status().await;
    assert_eq!((after.incarnation.clone(), node.pid()), (before.incarnation.clone(), pid));
    assert!(after.is_master() && after.open);
    assert_eq!(after.channel, None, "the agent before this one set it");
    node.apply(EngineOp::Start).await;
    assert_eq!(node.status().await.incarnation, before.incarnation);

    // Without its run file it is found by its port and the agent's password.
    std::fs::remove_file(node.site.data_dir.join("g.run.json")).unwrap();
    node.open().await.unwrap();
    let down = is_down(&node.engine().probe().await);
    node.apply(EngineOp::Start).await;
    assert!(down);
    assert_eq!(node.status().await.incarnation, before.incarnation);

    // An adopted process is watched to its end, and another is started in its place.
    let mut exited = node.engine().exited();
    signal(pid, Signal::KILL);
    tokio::time::timeout(LIMIT, exited.wait_for(|l| l.ended().is_some())).await.unwrap().unwrap();
    assert!(is_down(&node.engine().probe().await));
    node.apply(EngineOp::Start).await;
    let again = node.until("the data", |s| !s.loading).await;
    assert_ne!(again.incarnation, before.incarnation);
    assert_eq!(again.role, EngineRole::Sealed);
    assert!(!again.open);
}

#[tokio::test]
async fn a_kill_is_noticed_at_once_and_the_data_comes_back() {
    let mut node = Node::master().await;
    set(&mut node.client().await, "a", "1").await.unwrap();
    node.apply(EngineOp::Fsync(true)).await;
    let mut exited = node.engine().exited();
    let killed = Instant::now();
    signal(node.pid(), Signal::KILL);
    tokio::time::timeout(LIMIT, exited.wait_for(|l| l.ended().is_some())).await.unwrap().unwrap();
    // Milliseconds, with room for a busy machine.
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    let Seen::Down { why } = node.engine().probe().await else { panic!("must be down") };
    assert!(why.contains("signal 9"), "{why}");
    node.apply(EngineOp::Start).await;
    let status = node.until("the data", |s| !s.loading).await;
    assert!(!status.empty && !status.fsync && status.channel.is_none());
    assert_eq!(get(&mut node.client().await, "a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn the_kill_operation_ends_even_a_stopped_process() {
    let mut node = Node::started(&[]).await;
    signal(node.pid(), Signal::STOP);
    node.apply(EngineOp::Kill).await;
    assert!(is_down(&node.engine().probe().await));
    node.apply(EngineOp::Kill).await;
}

#[tokio::test]
async fn silence_is_told_from_death() {
    let mut node = Node::started(&[]).await;
    let run = node.status().await.incarnation;
    signal(node.pid(), Signal::STOP);
    let Seen::Silent { since: first, incarnation } = node.engine().probe().await else { panic!("must be silent") };
    assert_eq!(incarnation.as_ref(), Some(&run));
    let Seen::Silent { since: second, .. } = node.engine().probe().await else { panic!("must be silent") };
    assert_eq!(first, second, "the last answer does not move");
    signal(node.pid(), Signal::CONT);
    assert_eq!(node.status().await.incarnation, run);
}

#[tokio::test]
async fn a_copy_needs_the_channels_password() {
    let (mut master, mut replica) = (Node::master().await, Node::started(&[]).await);
    set(&mut master.client().await, "a", "1").await.unwrap();
    // No channel yet.
    replica.apply(follow(master.address(), "one")).await;
    let waiting = replica.status().await;
    assert!(waiting.follows(&master.address()) && !linked(&waiting));
    // Another password.
    master.apply(channel("other", false)).await;
    eventually("a refused login", || {
        let login = RedisConnectionInfo::default().set_username("understudy-repl").set_password("secret-one");
        let attempt = master.login(login);
        async { attempt.await.is_err() }
    })
    .await;
    assert!(!linked(&replica.status().await) && master.status().await.replicas.is_empty());
    // The right one.
    master.apply(channel("one", false)).await;
    let status = replica.until("the copy", |s| linked(s) && s.persisted).await;
    assert!(matches!(&status.role, EngineRole::Follows { channel: Some(name), .. } if name.as_str() == "one"));
    let there = master.until("the replica", |s| s.replicas.iter().any(|r| r.online)).await;
    assert_eq!(there.replicas[0].address, replica.address());
    assert_eq!((status.lineage, there.channel), (there.lineage, Some(Nonce::from("one"))));
    assert_eq!(get(&mut replica.client().await, "a").await.as_deref(), Some("1"));
    // The account is for replication and nothing else.
    let login = RedisConnectionInfo::default().set_username("understudy-repl").set_password("secret-one");
    let mut account = master.login(login).await.unwrap();
    assert_eq!(code(set(&mut account, "a", "2").await), "NOPERM");
}

#[tokio::test]
async fn an_exclusive_channel_ends_the_links_of_all_others() {
    let (mut master, mut one, mut two) = (Node::master().await, Node::started(&[]).await, Node::started(&[]).await);
    master.apply(EngineOp::Need(false)).await;
    master.feed(&mut one, "open").await;
    master.feed(&mut two, "open").await;
    master.until("both", |s| s.replicas.iter().filter(|r| r.online).count() == 2).await;
    master.apply(channel("cert", true)).await;
    assert!(master.status().await.need, "said before the password is given to anybody");
    assert!(master.status().await.replicas.is_empty());
    two.apply(follow(master.address(), "cert")).await;
    let status = master.until("the one", |s| s.replicas.iter().any(|r| r.online)).await;
    assert_eq!(status.replicas.len(), 1);
    assert_eq!(status.replicas[0].address, two.address());
    one.until("the lost link", |s| !linked(s)).await;
    assert_eq!(master.stat("sync_full").await, 2, "it went on where it was");
}

#[tokio::test]
async fn another_password_means_another_link() {
    let (mut master, mut replica) = (Node::master().await, Node::started(&[]).await);
    master.feed(&mut replica, "one").await;
    replica.until("the copy", linked).await;
    master.apply(channel("two", false)).await;
    assert!(linked(&replica.status().await), "an old link outlives its password");
    replica.apply(follow(master.address(), "two")).await;
    replica.until("the new link", linked).await;
    assert_eq!((master.stat("sync_full").await, master.stat("sync_partial_ok").await), (1, 1));
    // Said again, it changes nothing.
    replica.apply(follow(master.address(), "two")).await;
    replica.apply(EngineOp::Follow { source: master.address(), channel: None, replace: false }).await;
    assert!(linked(&replica.status().await));
    assert_eq!(master.stat("sync_partial_ok").await, 1);
}

#[tokio::test]
async fn a_sealed_replica_goes_on_where_it_was() {
    let (mut master, mut replica) = (Node::master().await, Node::started(&[]).await);
    master.feed(&mut replica, "one").await;
    let before = replica.until("the copy", linked).await;
    replica.apply(EngineOp::Seal).await;
    let sealed = replica.status().await;
    assert!(sealed.is_sealed() && sealed.lineage == before.lineage && sealed.position >= before.position);
    set(&mut master.client().await, "a", "1").await.unwrap();
    assert_eq!(get(&mut replica.client().await, "a").await, None);
    replica.apply(EngineOp::Seal).await;
    replica.apply(EngineOp::Follow { source: master.address(), channel: None, replace: false }).await;
    replica.until("the link", linked).await;
    assert_eq!((master.stat("sync_full").await, master.stat("sync_partial_ok").await), (1, 1));
    assert_eq!(get(&mut replica.client().await, "a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_promoted_replica_keeps_its_spare() {
    let (mut master, mut hot, mut spare) = (Node::master().await, Node::started(&[]).await, Node::started(&[]).await);
    master.feed(&mut hot, "one").await;
    hot.until("the copy", linked).await;
    hot.feed(&mut spare, "chain").await;
    spare.until("the second copy", linked).await;
    let full = hot.stat("sync_full").await;
    hot.apply(EngineOp::Seal).await;
    hot.apply(EngineOp::Promote).await;
    let status = hot.status().await;
    assert!(status.is_master() && !status.open && !status.guard);
    assert_eq!(code(set(&mut hot.client().await, "a", "1").await), "NOPERM", "not before it is opened");
    hot.apply(EngineOp::Mark(marker(1))).await;
    hot.apply(EngineOp::Open).await;
    set(&mut hot.client().await, "a", "1").await.unwrap();
    let at = hot.status().await.marked_at.unwrap();
    let fed = spare.until("the marker", |s| s.marker.is_some()).await;
    assert!(fed.marker == Some(marker(1)) && fed.marked_at.is_none());
    spare.until("the position", |s| s.position >= at).await;
    assert_eq!(hot.stat("sync_full").await, full, "no second copy");
}

#[tokio::test]
async fn the_guard_refuses_writes_that_nobody_acknowledges() {
    let (mut master, mut replica) = (Node::master().await, Node::started(&[]).await);
    master.apply(EngineOp::Guard(true)).await;
    assert!(master.status().await.guard);
    let mut client = master.client().await;
    assert_eq!(code(set(&mut client, "a", "1").await), "NOREPLICAS");
    for op in [EngineOp::Mark(marker(1)), EngineOp::Need(false)] {
        let error = master.refuses(op).await;
        assert!(matches!(error, EngineError::NoReplicas { .. }), "{error:?}");
    }
    assert!(master.status().await.marker.is_none());
    master.feed(&mut replica, "one").await;
    replica.until("the copy", linked).await;
    master.until("the replica", |s| s.replicas.iter().any(|r| r.online)).await;
    eventually("a write", || {
        let mut client = client.clone();
        async move { set(&mut client, "a", "1").await.is_ok() }
    })
    .await;
    replica.apply(EngineOp::Seal).await;
    master.apply(EngineOp::Guard(false)).await;
    set(&mut client, "a", "2").await.unwrap();
    assert!(!master.status().await.guard);
}

#[tokio::test]
async fn everything_is_put_on_disk_even_when_no_write_is_accepted() {
    let mut master = Node::master().await;
    master.apply(EngineOp::Mark(marker(1))).await;
    master.apply(EngineOp::Guard(true)).await;
    assert!(!master.status().await.fsync);
    master.apply(EngineOp::Fsync(true)).await;
    assert!(master.status().await.fsync);
    master.open().await.unwrap();
    assert!(!master.status().await.fsync, "another agent has to make sure itself");
    master.apply(EngineOp::Fsync(true)).await;
    master.apply(EngineOp::Fsync(false)).await;
    assert!(!master.status().await.fsync);
    let mut always = Node::started(&[("appendfsync", "always")]).await;
    assert!(!always.status().await.fsync, "the setting alone says nothing of earlier writes");
}

#[tokio::test]
async fn closed_is_closed_to_scripts_and_functions_too() {
    let mut master = Node::master().await;
    let mut client = master.client().await;
    let library = "#!lua name=l\nredis.register_function('f', function() return redis.call('SET', 'a', '1') end)";
    let load: Result<String, _> = redis::cmd("FUNCTION").arg("LOAD").arg(library).query_async(&mut client).await;
    load.unwrap();
    let writes: [&[&str]; 6] = [
        &["SET", "a", "1"],
        &["EVAL", "return redis.call('SET', 'a', '1')", "0"],
        &["FCALL", "f", "0"],
        &["FLUSHALL"],
        &["RESTORE", "b", "0", "x"],
        &["FUNCTION", "FLUSH"],
    ];
    master.apply(EngineOp::Promote).await;
    assert!(!master.status().await.open);
    for words in writes {
        let result: Result<redis::Value, _> = redis::cmd(words[0]).arg(&words[1..]).query_async(&mut client).await;
        let error = result.expect_err(words[0]).to_string();
        assert!(error.contains("NoPerm") || error.contains("can't run this command"), "{words:?}: {error}");
    }
    assert_eq!(get(&mut client, "a").await, None);
    master.apply(EngineOp::Open).await;
    assert!(master.status().await.open);
    for words in &writes[..3] {
        let result: Result<redis::Value, _> = redis::cmd(words[0]).arg(&words[1..]).query_async(&mut client).await;
        result.unwrap();
    }
    // What belongs to the agent stays the agent's.
    for words in [
        &["REPLICAOF", "NO", "ONE"][..],
        &["CONFIG", "SET", "maxmemory", "0"],
        &["CONFIG", "GET", "masterauth"],
        &["CONFIG", "REWRITE"],
        &["ACL", "SETUSER", "x"],
        &["ACL", "LIST"],
        &["SHUTDOWN", "NOSAVE"],
        &["PSYNC", "?", "-1"],
        &["SYNC"],
        &["REPLCONF", "ACK", "1"],
        &["FAILOVER"],
        &["SWAPDB", "0", "1"],
        &["MODULE", "LIST"],
        &["CLIENT", "PAUSE", "1"],
        &["CLIENT", "UNPAUSE"],
    ] {
        let result: Result<redis::Value, _> = redis::cmd(words[0]).arg(&words[1..]).query_async(&mut client).await;
        assert_eq!(code(result.map(drop)), "NOPERM", "{words:?}");
    }
}

#[tokio::test]
async fn held_writes_go_on_when_they_are_released() {
    let mut master = Node::master().await;
    master.apply(EngineOp::Quiesce { end: true }).await;
    assert!(master.status().await.quiesced);
    for op in [EngineOp::Mark(marker(1)), EngineOp::Need(false)] {
        assert!(matches!(master.refuses(op).await, EngineError::Held { .. }));
    }
    let mut client = master.client().await;
    let write = tokio::spawn(async move { set(&mut client, "a", "1").await });
    let mut reader = master.client().await;
    eventually("a write that waits", || {
        let mut connection = reader.clone();
        async move {
            let text: String = redis::cmd("INFO").arg("clients").query_async(&mut connection).await.unwrap();
            super::probe::Info::read(&text).number("blocked_clients") == 1
        }
    })
    .await;
    assert_eq!(get(&mut reader, "a").await, None);
    master.open().await.unwrap();
    assert!(master.status().await.quiesced, "the next agent knows");
    master.apply(EngineOp::Release).await;
    write.await.unwrap().unwrap();
    assert!(!master.status().await.quiesced);
    master.open().await.unwrap();
    assert!(!master.status().await.quiesced);
}

#[tokio::test]
async fn a_fenced_master_ends_held_writes_without_carrying_them_out() {
    let mut master = Node::master().await;
    set(&mut master.client().await, "a", "1").await.unwrap();
    master.apply(EngineOp::Quiesce { end: true }).await;
    let mut writes = Vec::new();
    for _ in 0..20 {
        let mut client = master.client().await;
        writes.push(tokio::spawn(async move { set(&mut client, "a", "2").await }));
    }
    eventually("the writes that wait", || {
        let client = master.client();
        async {
            let text: String = redis::cmd("INFO").arg("clients").query_async(&mut client.await).await.unwrap();
            super::probe::Info::read(&text).number("blocked_clients") == 20
        }
    })
    .await;
    master.apply(EngineOp::Fence).await;
    for write in writes {
        let error = write.await.unwrap().unwrap_err();
        assert!(error.is_connection_dropped(), "must end without an answer: {error}");
    }
    let status = master.status().await;
    assert!(status.is_sealed() && !status.open && !status.quiesced);
    let mut late = master.client().await;
    assert_eq!(get(&mut late, "a").await.as_deref(), Some("1"));
    assert_eq!(code(set(&mut late, "a", "3").await), "NOPERM");
    master.apply(EngineOp::Fence).await;
}

#[tokio::test]
async fn marker_and_need_are_kept_apart_from_the_users_data() {
    let (mut master, mut replica) = (Node::master().await, Node::started(&[]).await);
    // Redis counts from when it first had a replica.
    master.feed(&mut replica, "one").await;
    replica.until("the copy", linked).await;
    let fresh = master.status().await;
    assert!(fresh.need && fresh.marker.is_none() && fresh.empty);
    master.apply(EngineOp::Need(false)).await;
    let status = master.status().await;
    assert!(!status.need && status.empty, "need is not data");
    master.apply(EngineOp::Mark(marker(7))).await;
    let status = master.status().await;
    assert_eq!(status.marker, Some(marker(7)));
    assert!(!status.empty);
    let at = status.marked_at.unwrap();
    assert!(at > fresh.position && at <= status.position, "{at} lies behind the write");
    let mut client = master.client().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    assert_eq!(keys, Vec::<String>::new());
    let _: () = redis::cmd("FLUSHALL").query_async(&mut client).await.unwrap();
    let status = master.status().await;
    assert!(status.marker.is_none() && status.marked_at.is_none() && status.need);
}

#[tokio::test]
async fn a_connection_that_was_ended_is_made_again_within_the_probe() {
    let mut master = Node::master().await;
    master.status().await;
    let mut client = master.client().await;
    let _: i64 = redis::cmd("CLIENT").arg("KILL").arg("USER").arg("understudy").query_async(&mut client).await.unwrap();
    master.status().await;
}

#[tokio::test]
async fn a_crowded_server_is_not_a_dead_one() {
    let mut node = Node::started(&[("maxclients", "4")]).await;
    node.engine().link = None;
    let mut clients = Vec::new();
    while let Ok(client) = node.login(RedisConnectionInfo::default()).await {
        assert!(clients.len() < 4, "there must be an end");
        clients.push(client);
    }
    let Seen::Silent { since: first, .. } = node.engine().probe().await else { panic!("must have no answer") };
    tokio::time::sleep(Duration::from_millis(5)).await;
    let Seen::Silent { since: second, .. } = node.engine().probe().await else { panic!("must have no answer") };
    assert!(second > first, "a refusal is an answer");
    clients.clear();
    let end = Instant::now() + LIMIT;
    while node.engine().probe().await.status().is_none() {
        assert!(Instant::now() < end, "no answer when there is room again");
    }
}

#[tokio::test]
async fn no_password_can_be_read_from_the_server() {
    let every = [("slowlog-log-slower-than", "0"), ("slowlog-max-len", "10000")];
    let (mut master, mut replica) = (Node::started(&every).await, Node::started(&every).await);
    master.apply(EngineOp::Promote).await;
    master.feed(&mut replica, "one").await;
    replica.until("the copy", linked).await;
    for node in [&mut master, &mut replica] {
        node.status().await;
        let mut client = node.client().await;
        let log: redis::Value = redis::cmd("SLOWLOG").arg("GET").arg(-1).query_async(&mut client).await.unwrap();
        let log = format!("{log:?}");
        assert!(log.contains("HGETALL"), "the log must be on");
        assert!(!log.contains("secret-one"));
        let text = std::fs::read_to_string(node.config.data_dir.join("redis.log")).unwrap();
        assert!(!text.contains("secret-one"));
    }
}

#[tokio::test]
async fn a_full_master_can_still_write_its_marker() {
    let mut master = Node::started(&[("maxmemory", "1"), ("maxmemory-policy", "noeviction")]).await;
    master.apply(EngineOp::Promote).await;
    master.apply(EngineOp::Open).await;
    assert_eq!(code(set(&mut master.client().await, "a", "1").await), "OOM");
    master.apply(EngineOp::Mark(marker(1))).await;
    master.apply(EngineOp::Need(false)).await;
    let status = master.status().await;
    assert!(status.marker == Some(marker(1)) && !status.need);
}

#[tokio::test]
async fn strangers_are_expelled() {
    let (mut master, mut one, mut two) = (Node::master().await, Node::started(&[]).await, Node::started(&[]).await);
    master.feed(&mut one, "same").await;
    master.feed(&mut two, "same").await;
    one.until("its copy", linked).await;
    two.until("its copy", linked).await;
    // So that who is expelled stays away.
    master.apply(channel("new", false)).await;
    let keep = two.address();
    let end = Instant::now() + LIMIT;
    loop {
        master.apply(EngineOp::Expel { keep: keep.clone() }).await;
        let left: Vec<Address> = master.status().await.replicas.into_iter().map(|r| r.address).collect();
        if left == [keep.clone()] {
            break;
        }
        assert!(Instant::now() < end, "{left:?} are left");
    }
    assert!(linked(&two.status().await), "the one that stays is not disturbed");
    one.until("the lost link", |s| !linked(s)).await;
    master.apply(EngineOp::Expel { keep }).await;
    assert_eq!(master.status().await.replicas.len(), 1);
}

#[tokio::test]
async fn a_start_that_fails_says_what_the_server_said() {
    let taken = Node::started(&[]).await;
    let mut node = Node::prepared();
    node.config.port = taken.config.port;
    node.open().await.unwrap();
    let error = node.refuses(EngineOp::Start).await.to_string();
    assert!(error.contains("Address already in use") && error.contains("redis.log"), "{error}");
    let Seen::Down { why } = node.engine().probe().await else { panic!("must be down") };
    assert!(why.contains("Address already in use"), "{why}");

    let mut node = Node::with(&[("maxmemory", "lots")]).await;
    let error = node.refuses(EngineOp::Start).await.to_string();
    assert!(error.contains("maxmemory") && error.contains("argument must be a memory value"), "{error}");
}

#[tokio::test]
async fn loading_is_an_answer() {
    let mut node = Node::master().await;
    node.own(&["EVAL", "for i = 1, 20000 do redis.call('SET', 'k' .. i, i) end", "0"]).await.unwrap();
    node.apply(EngineOp::Mark(marker(1))).await;
    node.apply(EngineOp::Fsync(true)).await;
    node.apply(EngineOp::Kill).await;
    // Microseconds for each key: two seconds and more in all. It answers after every 1024.
    node.config.settings.insert("key-load-delay".into(), "100".into());
    node.open().await.unwrap();
    node.apply(EngineOp::Start).await;
    let status = node.status().await;
    assert!(status.loading && !status.empty && status.marker.is_none() && !status.is_whole() && !status.open);
    let status = node.until("the data", |s| !s.loading).await;
    assert_eq!(status.marker, Some(marker(1)));
}

#[tokio::test]
async fn a_copy_is_persisted_only_once_it_was_rewritten() {
    let mut master = Node::master().await;
    let mut replica = Node::started(&[("rdb-key-save-delay", "500")]).await;
    master.own(&["EVAL", "for i = 1, 3000 do redis.call('SET', 'k' .. i, i) end", "0"]).await.unwrap();
    master.feed(&mut replica, "one").await;
    let status = replica.until("the copy", linked).await;
    assert!(!status.persisted, "a crash now would bring the old data back");
    replica.until("the rewrite", |s| s.persisted).await;
    replica.own(&["BGREWRITEAOF"]).await.unwrap();
    let mut rewriting = false;
    loop {
        let mut commands = redis::pipe();
        commands.cmd("INFO").arg("persistence");
        let answers = replica.engine().link().await.unwrap().run(&commands).await.unwrap();
        let text: String = redis::from_redis_value(answers.into_iter().next().unwrap()).unwrap();
        if super::probe::Info::read(&text).text("aof_rewrite_in_progress") == "0" {
            break;
        }
        rewriting = true;
        assert!(replica.status().await.persisted, "a routine rewrite takes nothing away");
    }
    assert!(rewriting);
}

#[tokio::test]
async fn a_folder_with_a_snapshot_is_adopted_with_its_data() {
    let mut source = Node::master().await;
    set(&mut source.client().await, "a", "1").await.unwrap();
    source.own(&["SAVE"]).await.unwrap();

    let mut node = Node::prepared();
    copy(source.config.data_dir.join("dump.rdb"), node.config.data_dir.join("dump.rdb"));
    node.config.adopt = true;
    node.open().await.unwrap();
    node.apply(EngineOp::Start).await;
    let status = node.until("the append-only file", |s| s.persisted).await;
    assert!(status.is_sealed() && !status.empty);
    node.apply(EngineOp::Kill).await;
    node.config.adopt = false;
    node.open().await.unwrap();
    node.apply(EngineOp::Start).await;
    node.until("the data", |s| !s.loading).await;
    assert_eq!(get(&mut node.client().await, "a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn what_runs_on_another_port_than_the_file_says_is_not_taken_over() {
    let mut node = Node::started(&[]).await;
    let (pid, port) = (node.pid(), node.config.port);
    node.config.port = free_port();
    let error = node.open().await.unwrap_err().to_string();
    assert!(error.contains(&pid.to_string()) && error.contains(&port.to_string()), "{error}");
    node.config.port = port;
    node.open().await.unwrap();
}
