//! The operations against real PostgreSQL processes.

use std::time::{Duration, Instant};

use ::config::InstanceConfig;
use election::{Engine as Seen, EngineOp, EngineRole, Marker, Nonce, Secret, ServerRole, Status};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::config::{self, Gate, Live};
use super::history::{self, Verdict};
use super::{Link, Postgres, rebuild};
use crate::engine::supervise::Life;
use crate::engine::testing::{self, LIMIT, Tested};
use crate::engine::{Engine, EngineError, Site};

type Node = testing::Node<Postgres>;

impl Tested for Postgres {
    const KIND: ::config::Engine = ::config::Engine::Postgres;
    const LOG: &'static str = super::LOG;

    // In files below the data: a server that is killed for good leaves none in the system's memory.
    const SETTINGS: &'static [(&'static str, &'static str)] = &[("dynamic_shared_memory_type", "mmap")];

    async fn open(config: &InstanceConfig, site: &Site) -> Result<Self, EngineError> {
        Postgres::open(config, site).await
    }
}

impl Node {
    async fn started() -> Self {
        let mut node = Self::prepared();
        node.open().await.unwrap();
        node.apply(EngineOp::Start).await;
        node.until("a sealed server", |st| !st.loading).await;
        node
    }

    /// A master that clients may write to, and whose commits wait for nobody.
    async fn master() -> Self {
        let mut node = Self::prepared();
        node.open().await.unwrap();
        node.begin().await;
        node
    }

    /// The same, of one that is open and not started.
    async fn begin(&mut self) {
        self.apply(EngineOp::Start).await;
        self.until("a sealed server", |st| !st.loading).await;
        for op in [EngineOp::Promote, EngineOp::Guard(false), EngineOp::Mark(marker(1)), EngineOp::Open] {
            self.apply(op).await;
        }
    }

    /// A copy of `source` that is fed, through the channel that anybody may have.
    async fn copy_of(source: &mut Node) -> Self {
        let mut node = Self::started().await;
        node.join(source).await;
        node
    }

    async fn join(&mut self, source: &mut Node) {
        let channel = source.channel("shared", false).await;
        self.apply(EngineOp::Follow { source: source.address(), channel: Some(channel), replace: true }).await;
        self.until("a fed copy", fed).await;
    }

    /// Gives a password out, and says what has to be used.
    async fn channel(&mut self, name: &str, exclusive: bool) -> (Nonce, Secret) {
        let asked = Secret::new(format!("secret-{name}"));
        let (name, secret) = (Nonce::from(name), asked.clone());
        self.apply(EngineOp::Channel { name: name.clone(), secret, exclusive }).await;
        (name, self.engine().secret_in_force().unwrap_or(asked))
    }

    /// Makes `copy` the one that commits wait for.
    async fn certify(&mut self, copy: &mut Node) {
        let channel = self.channel("0123456789abcdef0123", true).await;
        copy.apply(EngineOp::Follow { source: self.address(), channel: Some(channel), replace: true }).await;
        // As the core does it: whoever logged in just before the password changed is sent away, and only the copy that
        // is attached under the new one is waited for.
        let end = Instant::now() + LIMIT;
        loop {
            let status = self.status().await;
            let alone = status.replicas.len() == 1 && status.replicas[0].address == copy.address();
            if alone && status.guard && status.need && status.replicas[0].online {
                return;
            }
            assert!(Instant::now() < end, "the copy does not stay alone: {status:?}");
            if status.replicas.iter().any(|r| r.address != copy.address()) {
                self.apply(EngineOp::Expel { keep: copy.address() }).await;
            } else if alone && !status.guard {
                self.apply(EngineOp::Guard(true)).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn client(&self) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.config.port)
            .username("postgres")
            .database("postgres")
            .ssl_mode(PgSslMode::Disable);
        PgConnection::connect_with(&options).await
    }

    async fn run(&self, sql: &str) -> Result<(), sqlx::Error> {
        run(&mut self.client().await?, sql).await
    }

    async fn count(&self) -> i64 {
        let mut client = self.client().await.unwrap();
        let row = sqlx::query("SELECT count(*) FROM t").fetch_one(&mut client).await.unwrap();
        row.get(0)
    }

    async fn kill_hard(&mut self) {
        self.apply(EngineOp::Kill).await;
    }
}

async fn run(client: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(client).await.map(drop)
}

fn marker(counter: u64) -> Marker {
    Marker { uid: "uid".into(), epoch: 3, nonce: Nonce::from("n"), counter }
}

fn fed(status: &Status) -> bool {
    matches!(&status.role, EngineRole::Follows { link_up: true, syncing: false, .. }) && !status.loading
}

#[tokio::test]
async fn it_boots_sealed_and_empty_and_is_found_again() {
    let mut node = Node::prepared();
    node.open().await.unwrap();
    assert!(matches!(node.engine().probe().await, Seen::Down { .. }));
    node.apply(EngineOp::Start).await;
    let status = node.until("an answer", |st| !st.loading).await;
    assert_eq!(status.role, EngineRole::Sealed);
    assert!(status.empty && status.persisted && status.fsync && !status.open && status.guard, "{status:?}");
    let error = node.run("CREATE TABLE t (n int)").await.unwrap_err().to_string();
    assert!(error.contains("read-only"), "{error}");
    node.apply(EngineOp::Start).await;
    assert_eq!(node.status().await.incarnation, status.incarnation, "a second start does nothing");
    node.open().await.unwrap();
    assert_eq!(node.status().await, status, "a restarted agent finds it");
    node.apply(EngineOp::Stop).await;
    assert!(matches!(node.engine().probe().await, Seen::Down { .. }));
}

#[tokio::test]
async fn a_master_is_closed_until_it_is_opened_and_comes_back_sealed() {
    let mut node = Node::started().await;
    node.apply(EngineOp::Promote).await;
    let status = node.status().await;
    assert!(status.is_master() && !status.open && status.guard && !status.empty, "{status:?}");
    assert!(node.client().await.is_err(), "closed to clients");
    node.apply(EngineOp::Guard(false)).await;
    node.apply(EngineOp::Mark(marker(7))).await;
    let status = node.status().await;
    assert_eq!(status.marker, Some(marker(7)));
    assert!(!status.guard && !status.need && status.marked_at.is_some_and(|at| at <= status.position), "{status:?}");
    node.apply(EngineOp::Open).await;
    assert!(node.status().await.open);
    node.run("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await.unwrap();
    let before = node.status().await;
    node.kill_hard().await;
    node.apply(EngineOp::Start).await;
    let after = node.until("the data", |st| !st.loading).await;
    assert_ne!(after.incarnation, before.incarnation);
    assert!(after.is_sealed() && !after.empty && after.marker == Some(marker(7)), "{after:?}");
    assert_eq!(after.lineage, before.lineage);
}

#[tokio::test]
async fn a_copy_is_certified_and_takes_over_and_the_old_master_is_wound_back() {
    let mut old = Node::master().await;
    old.run("CREATE TABLE t (n int PRIMARY KEY)").await.unwrap();
    let mut copy = Node::copy_of(&mut old).await;
    assert_eq!(copy.status().await.lineage, old.status().await.lineage);
    old.certify(&mut copy).await;
    old.apply(EngineOp::Mark(marker(2))).await;
    copy.until("the marker", |st| st.marker == Some(marker(2))).await;
    old.run("INSERT INTO t VALUES (1)").await.unwrap();

    copy.apply(EngineOp::Seal).await;
    let sealed = copy.status().await;
    assert!(sealed.is_sealed(), "{sealed:?}");
    // Nobody acknowledges any more: a commit waits, and is what only the old master has.
    let mut client = old.client().await.unwrap();
    let late = tokio::time::timeout(Duration::from_millis(300), run(&mut client, "INSERT INTO t VALUES (2)")).await;
    assert!(late.is_err(), "it was acknowledged: {late:?}");
    drop(client);

    copy.apply(EngineOp::Promote).await;
    for op in [EngineOp::Guard(false), EngineOp::Mark(Marker { epoch: 4, ..marker(3) }), EngineOp::Open] {
        copy.apply(op).await;
    }
    copy.run("INSERT INTO t VALUES (3)").await.unwrap();
    assert_eq!(copy.count().await, 2);

    old.apply(EngineOp::Fence).await;
    let fenced = old.until("the fenced master", |st| !st.loading).await;
    assert!(fenced.is_sealed(), "{fenced:?}");
    assert_eq!(old.count().await, 2, "the late write came back with it");
    old.apply(EngineOp::Keep { epoch: 3 }).await;
    assert_eq!(old.status().await.kept, Some(3));
    old.join(&mut copy).await;
    old.until("the new marker", |st| st.marker.as_ref().is_some_and(|m| m.epoch == 4)).await;
    assert_eq!(old.count().await, 2, "the late write is gone, the new one is there");
    let saved = old.config.data_dir.join("diverged-3");
    assert!(saved.join("tail.json").is_file(), "the tail is saved: {}", old.log());
    assert!(!old.config.data_dir.join(rebuild::INCOMPLETE).exists());
}

#[tokio::test]
async fn commits_wait_only_for_the_certified_and_a_stranger_is_expelled() {
    let mut master = Node::master().await;
    master.run("CREATE TABLE t (n int)").await.unwrap();
    let mut hot = Node::copy_of(&mut master).await;
    let mut other = Node::copy_of(&mut master).await;
    let status = master.until("both", |st| st.replicas.len() == 2).await;
    assert!(status.replicas.iter().all(|r| r.online), "{status:?}");
    master.apply(EngineOp::Expel { keep: hot.address() }).await;
    master.certify(&mut hot).await;
    master.run("INSERT INTO t VALUES (1)").await.unwrap();
    hot.kill_hard().await;
    let mut client = master.client().await.unwrap();
    let late = tokio::time::timeout(Duration::from_millis(300), run(&mut client, "INSERT INTO t VALUES (2)")).await;
    assert!(late.is_err(), "another copy acknowledged: {late:?}");
    assert!(!fed(&other.status().await), "the shared password opens the master no more");
    // An `async` group has a hot replica that nothing waits for; one that lost it has none.
    master.apply(EngineOp::Need(false)).await;
    let status = master.status().await;
    assert!(status.guard && !status.need, "{status:?}");
    master.run("INSERT INTO t VALUES (3)").await.unwrap();
    assert_eq!(master.count().await, 3);
    master.apply(EngineOp::Guard(false)).await;
    assert!(!master.status().await.guard);
}

#[tokio::test]
async fn writes_are_held_and_an_idle_client_is_sent_away() {
    let mut master = Node::master().await;
    master.run("CREATE TABLE t (n int)").await.unwrap();
    let mut idle = master.client().await.unwrap();
    let mut slow = master.client().await.unwrap();
    run(&mut slow, "BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    master.apply(EngineOp::Quiesce { end: false }).await;
    assert!(!master.status().await.quiesced, "a transaction runs");
    assert!(run(&mut idle, "SELECT 1").await.is_err(), "its connection was ended");
    run(&mut slow, "SELECT 1").await.expect("it may go on");
    master.apply(EngineOp::Quiesce { end: true }).await;
    assert!(master.status().await.quiesced);
    assert!(run(&mut slow, "SELECT 1").await.is_err(), "its time was up");
    assert!(master.client().await.is_err());
    master.apply(EngineOp::Release).await;
    master.apply(EngineOp::Open).await;
    assert!(!master.status().await.quiesced);
    assert_eq!(master.count().await, 0);
}

#[tokio::test]
async fn a_copy_that_is_not_whole_is_thrown_away() {
    let mut node = Node::master().await;
    node.run("CREATE TABLE t (n int)").await.unwrap();
    node.kill_hard().await;
    std::fs::write(node.config.data_dir.join(rebuild::INCOMPLETE), "").unwrap();
    node.apply(EngineOp::Start).await;
    let status = node.until("a new server", |st| !st.loading).await;
    assert!(status.empty && status.marker.is_none(), "{status:?}");
}

#[tokio::test]
async fn data_of_another_version_or_owner_are_named_and_not_started() {
    let mut node = Node::started().await;
    node.kill_hard().await;
    let data = node.config.data_dir.join(super::DATA);
    let version = std::fs::read(data.join("PG_VERSION")).unwrap();
    std::fs::write(data.join("PG_VERSION"), "9\n").unwrap();
    let error = node.engine().apply(&EngineOp::Start).await.unwrap_err().to_string();
    assert!(error.contains("holds the data of PostgreSQL 9") && error.contains("`bin`"), "{error}");
    std::fs::write(data.join("PG_VERSION"), version).unwrap();

    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&data).unwrap());
    // Only root can give a folder away.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&data, Some(0), None).unwrap();
        let error = node.engine().apply(&EngineOp::Start).await.unwrap_err().to_string();
        assert!(error.contains("number 0") && error.contains("`postgres`") && error.contains("chown"), "{error}");
        std::os::unix::fs::chown(&data, Some(owner), None).unwrap();
    }
    node.apply(EngineOp::Start).await;
    node.until("the data as they were", |st| !st.loading).await;
}

#[tokio::test]
async fn the_password_of_the_file_is_the_administrators() {
    let mut node = Node::prepared();
    let file = node.dir.path().join("password");
    std::fs::write(&file, "it's \\ \"open\"\n").unwrap();
    node.config.password_file = Some(file);
    node.open().await.unwrap();
    node.apply(EngineOp::Start).await;
    node.until("a sealed server", |st| !st.loading).await;
    for op in [EngineOp::Promote, EngineOp::Guard(false), EngineOp::Open] {
        node.apply(op).await;
    }
    assert!(node.client().await.is_err(), "a password is asked for");
    let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(node.config.port).username("postgres");
    let options = options.database("postgres").password("it's \\ \"open\"");
    let mut client = PgConnection::connect_with(&options).await.unwrap();
    run(&mut client, "CREATE TABLE t (n int)").await.unwrap();
    assert!(!node.log().contains("open"), "the password is in the log");
}

#[tokio::test]
async fn data_that_is_not_ours_or_of_another_version_is_not_touched() {
    let mut node = Node::prepared();
    std::fs::create_dir_all(&node.config.data_dir).unwrap();
    std::fs::write(node.config.data_dir.join("PG_VERSION"), "9.6\n").unwrap();
    node.open().await.unwrap();
    assert!(matches!(node.engine().probe().await, Seen::Foreign { .. }));
    node.config.adopt = true;
    node.open().await.unwrap();
    let error = node.engine().apply(&EngineOp::Start).await.unwrap_err().to_string();
    assert!(error.contains("9.6") && error.contains("nothing was touched"), "{error}");
    assert_eq!(std::fs::read_dir(&node.config.data_dir).unwrap().count(), 1);

    let version = node.engine().program.major.to_string();
    std::fs::write(node.config.data_dir.join("PG_VERSION"), version).unwrap();
    std::fs::create_dir_all(node.config.data_dir.join("pg_tblspc/16384")).unwrap();
    let error = node.engine().apply(&EngineOp::Start).await.unwrap_err().to_string();
    assert!(error.contains("tablespaces") && error.contains("DROP TABLESPACE"), "{error}");
    assert_eq!(std::fs::read_dir(&node.config.data_dir).unwrap().count(), 2);
}

#[tokio::test]
async fn what_a_superuser_makes_lax_is_noticed_and_forgotten_at_the_next_start() {
    let mut node = Node::master().await;
    node.status().await;
    assert!(!node.engine().memo.lax_commits);
    node.run("ALTER SYSTEM SET synchronous_commit = off").await.unwrap();
    node.run("ALTER SYSTEM SET work_mem = '8MB'").await.unwrap();
    node.run("SELECT pg_reload_conf()").await.unwrap();
    let end = Instant::now() + LIMIT;
    while !node.engine().memo.lax_commits {
        assert!(Instant::now() < end, "it is not noticed");
        node.engine().memo.commits_minded = None;
        node.status().await;
    }
    node.kill_hard().await;
    node.apply(EngineOp::Start).await;
    node.until("a sealed server", |st| !st.loading).await;
    assert!(!node.engine().memo.lax_commits);
    let mut client = node.client().await.unwrap();
    let row = sqlx::query("SELECT current_setting('synchronous_commit'), current_setting('work_mem')");
    let row = row.fetch_one(&mut client).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("on", "8MB"));
}

#[tokio::test]
async fn what_was_made_and_never_fed_is_fed_by_whom_a_restarted_agent_is_told() {
    let mut master = Node::master().await;
    master.run("CREATE TABLE t (n int)").await.unwrap();
    let mut node = Node::prepared();
    node.open().await.unwrap();
    node.engine().setup.claim(|| Ok(())).unwrap();
    // Without the log it is not whole before it is fed.
    let mut command = tokio::process::Command::new(node.engine().program.path("pg_basebackup"));
    command.args(["--wal-method=none", "--checkpoint=fast", "--host=127.0.0.1", "--username=postgres"]);
    command
        .arg("--port")
        .arg(master.config.port.to_string())
        .arg("--pgdata")
        .arg(node.config.data_dir.join(super::DATA));
    if let Some(account) = &node.engine().setup.account {
        account.run(&mut command);
    }
    assert!(command.current_dir(&node.config.data_dir).status().await.unwrap().success());
    std::fs::write(node.config.data_dir.join(rebuild::INCOMPLETE), "").unwrap();
    node.engine().launch(&Live::sealed()).await.unwrap();
    node.apply(EngineOp::Start).await;
    node.open().await.unwrap();
    node.join(&mut master).await;
    assert!(!node.config.data_dir.join(rebuild::INCOMPLETE).exists());
    assert_eq!(node.count().await, 0);
}

#[tokio::test]
async fn two_that_took_the_same_number_are_told_apart_by_their_histories() {
    let mut master = Node::master().await;
    master.run("CREATE TABLE t (n int)").await.unwrap();
    let mut early = Node::copy_of(&mut master).await;
    let mut late = Node::copy_of(&mut master).await;
    early.kill_hard().await;
    master.run("INSERT INTO t SELECT generate_series(1, 1000)").await.unwrap();
    let written = master.status().await.position;
    late.until("what was written last", |st| st.position >= written).await;
    master.kill_hard().await;
    early.apply(EngineOp::Start).await;
    early.until("a sealed server", |st| !st.loading).await;
    for node in [&mut early, &mut late] {
        node.apply(EngineOp::Seal).await;
        node.apply(EngineOp::Promote).await;
    }
    assert_eq!(late.status().await.lineage, early.status().await.lineage);

    // The late one must not be ahead, or that is all that is seen.
    for op in [EngineOp::Guard(false), EngineOp::Open] {
        early.apply(op).await;
    }
    early.run("INSERT INTO t SELECT generate_series(1, 5000)").await.unwrap();
    let (_, secret) = early.channel("shared", false).await;
    let (answer, _) = late.engine().ask().await.unwrap();
    let own = late.engine().own_history(&answer);
    let verdict = history::compare(&own, &early.address(), &secret).await.unwrap();
    let Verdict::Parted { fork: Some(fork), rewindable: false } = verdict else { panic!("{verdict:?}") };
    assert!(fork < own.end && fork <= written.0, "{fork} {own:?}");
}

#[tokio::test]
async fn nobodys_function_runs_in_the_agents_name() {
    let mut master = Node::master().await;
    master
        .run(
            "CREATE TABLE called (n int);
             CREATE FUNCTION public.starts_with(name, text) RETURNS boolean LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.called VALUES (1); RETURN true; END $$;
             SELECT pg_create_physical_replication_slot('understudy_left_over', true)",
        )
        .await
        .unwrap();
    master.site.nodes = tokio::sync::watch::channel(Some([master.address()].into())).1;
    master.open().await.unwrap();
    let end = Instant::now() + LIMIT;
    while slot(&master).await.is_some() {
        assert!(Instant::now() < end, "a slot that is left over stays");
        master.engine().probe().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut client = master.client().await.unwrap();
    let row = sqlx::query("SELECT count(*) FROM called").fetch_one(&mut client).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 0, "it was called");
}

#[tokio::test]
async fn a_gate_that_may_not_be_in_force_is_not_counted_on() {
    let mut master = Node::master().await;
    let shared = master.channel("shared", false).await;
    assert_eq!(master.status().await.channel, Some(shared.0));
    let Life::Running { pid, .. } = master.engine().supervisor.life() else { panic!("it is down") };
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    // It is the one that reads its files again and tells the others.
    kill_process(pid, Signal::STOP).unwrap();
    let exclusive = EngineOp::Channel { name: Nonce::from("n"), secret: Secret::new("s"), exclusive: true };
    let failed = master.engine().apply(&exclusive).await;
    kill_process(pid, Signal::CONT).unwrap();
    failed.unwrap_err();
    assert_eq!(master.status().await.channel, None, "it is to be ordered again");
    // Whoever has the chain's password is let in again.
    let mut copy = Node::copy_of(&mut master).await;
    assert!(fed(&copy.status().await));
    let file = std::fs::read_to_string(master.config.data_dir.join(config::HBA)).unwrap();
    assert_eq!(Gate::read(&file), Gate { clients: true, exclusive: false });
}

/// Makes the master's log longer by so many files, and lets it throw away what nobody needs.
async fn write_files(master: &Node, files: u32) {
    for _ in 0..files {
        master.run("SELECT pg_logical_emit_message(false, 'x', 'y'); SELECT pg_switch_wal()").await.unwrap();
    }
    master.run("CHECKPOINT").await.unwrap();
}

/// How the one slot of the master is: `wal_status`, and whether it is in use.
async fn slot(master: &Node) -> Option<(String, bool)> {
    let mut client = master.client().await.unwrap();
    let sql = "SELECT wal_status, active FROM pg_replication_slots WHERE slot_name LIKE 'understudy%'";
    let row = sqlx::query(sql).fetch_optional(&mut client).await.unwrap()?;
    Some((row.get(0), row.get(1)))
}

async fn until_slot(master: &Node, what: &str, wanted: impl Fn(Option<&(String, bool)>) -> bool) {
    let end = Instant::now() + LIMIT;
    loop {
        let seen = slot(master).await;
        if wanted(seen.as_ref()) {
            return;
        }
        assert!(Instant::now() < end, "{what} did not come: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_a_slot_has_kept_spares_a_clone_and_what_it_has_not_is_cloned() {
    let mut master = Node::prepared();
    for (key, value) in
        [("wal_keep_size", "0"), ("max_wal_size", "32MB"), ("min_wal_size", "32MB"), ("max_slot_wal_keep_size", "80MB")]
    {
        master.config.settings.insert(key.to_owned(), value.to_owned());
    }
    master.open().await.unwrap();
    master.begin().await;
    let mut copy = Node::copy_of(&mut master).await;
    until_slot(&master, "the copy's slot", |slot| slot.is_some_and(|(_, active)| *active)).await;
    // A clone takes the place of the whole folder.
    let witness = copy.config.data_dir.join(super::DATA).join("witness");
    std::fs::write(&witness, "").unwrap();

    copy.kill_hard().await;
    write_files(&master, 3).await;
    assert!(slot(&master).await.is_some_and(|(status, active)| status != "lost" && !active));
    copy.apply(EngineOp::Start).await;
    copy.join(&mut master).await;
    assert!(witness.exists(), "it was cloned though its slot had kept what it lacked\n{}", copy.log());

    copy.kill_hard().await;
    write_files(&master, 8).await;
    until_slot(&master, "the bound of the slot", |slot| slot.is_some_and(|(status, _)| status == "lost")).await;
    copy.apply(EngineOp::Start).await;
    copy.join(&mut master).await;
    assert!(!witness.exists(), "it is behind what is kept, and was not cloned");
    until_slot(&master, "a new slot", |slot| slot.is_some_and(|(status, active)| status != "lost" && *active)).await;
}

#[tokio::test]
async fn slots_that_are_left_over_are_removed() {
    let mut master = Node::master().await;
    let mut hot = Node::copy_of(&mut master).await;
    let (agents, known) = tokio::sync::watch::channel(Default::default());
    let mut copy = Node::prepared();
    copy.site.agents = known;
    copy.open().await.unwrap();
    copy.apply(EngineOp::Start).await;
    copy.join(&mut hot).await;
    until_slot(&hot, "the copy's slot", |slot| slot.is_some_and(|(_, active)| *active)).await;
    // It moves to another source, and takes its slot with it.
    agents.send_replace([(hot.address(), String::new()), (master.address(), String::new())].into());
    copy.join(&mut master).await;
    let end = Instant::now() + LIMIT;
    while slot(&hot).await.is_some() {
        assert!(Instant::now() < end, "its slot stays where it is fed no more");
        copy.engine().probe().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // The nodes of the other two are struck off the group: their copies are gone.
    copy.kill_hard().await;
    hot.kill_hard().await;
    master.site.nodes = tokio::sync::watch::channel(Some([master.address()].into())).1;
    master.open().await.unwrap();
    let end = Instant::now() + LIMIT;
    while slot(&master).await.is_some() {
        assert!(Instant::now() < end, "slots of nodes that are gone stay");
        master.engine().probe().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_says_what_it_is_at_the_moment_it_is_asked() {
    let mut node = Node::started().await;
    let asker = node.engine().asker().unwrap();
    assert_eq!(asker.role().await.unwrap(), ServerRole::Copy);
    node.apply(EngineOp::Promote).await;
    assert_eq!(asker.role().await.unwrap(), ServerRole::Master);
    node.apply(EngineOp::Kill).await;
    asker.role().await.unwrap_err();
    node.apply(EngineOp::Start).await;
    node.until("a sealed server", |st| !st.loading).await;
    assert_eq!(asker.role().await.unwrap(), ServerRole::Copy);
    // Promoted by hand.
    Link::open(&node.engine().setup.target()).await.unwrap().text("SELECT pg_promote()::text").await.unwrap();
    assert_eq!(asker.role().await.unwrap(), ServerRole::Master);
}
