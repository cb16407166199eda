//! PostgreSQL: what a group goes through besides failovers: agents that restart, nodes rebuilt, data adopted, waits
//! cancelled.

use anyhow::{Context, Result};
use cli::rig::{free_port, server_program};
use config::Engine;
use rustix::process::Signal;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use understudy_tests::real::{
    Cast, LIMIT, Lone, Story, adopting, async_master_dies, build, commit_waits, connect_postgres, execute, of, quick,
    said, select, send, start, start_unready, stop_sender, until, writes_go_on,
};

async fn group() -> Result<Story> {
    start(quick(Engine::Postgres)?).await
}

#[tokio::test]
async fn a_restarted_agent_finds_its_database_and_nothing_changes() -> Result<()> {
    let mut story = group().await?;
    let before = story.cast().await?;
    let mut writer = story.client("agents").await?;
    for node in [&before.master, &before.hot, &before.spares[0]] {
        let pid = story.database_pid(node)?;
        story.kill_agent(node)?;
        story.restart_agent(node)?;
        let after = story.cast().await?;
        assert_eq!((after.epoch, &after.master, &after.hot), (before.epoch, &before.master, &before.hot));
        assert_eq!(story.database_pid(node)?, pid, "{node}'s database was restarted");
    }
    // And they can still do what they could.
    let died = story.kill_database(&before.master)?;
    story.taken_over(&before.master).await?;
    writes_go_on(&writer, died).await?;
    story.cast().await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_node_is_rebuilt_from_nothing() -> Result<()> {
    let mut story = group().await?;
    let before = story.cast().await?;
    let mut writer = story.client("rebuilt").await?;
    let spare = before.spares[0].clone();
    story.kill_node(&spare)?;
    let folder = story.folder().join(&spare);
    std::fs::remove_dir_all(folder.join("postgres"))?;
    std::fs::remove_dir_all(folder.join("agent"))?;
    story.restart_agent(&spare)?;
    let after = story.cast().await?;
    assert_eq!((after.epoch, &after.master), (before.epoch, &before.master));
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_async_group_waits_for_nobody_and_fails_over() -> Result<()> {
    let story = start(quick(Engine::Postgres)?.policy("durability", "\"async\"")).await?;
    let before = story.cast().await?;
    let master = story.database_addr(&before.master)?;
    until("commits that wait for nobody", async || {
        Ok((select(master, "SHOW synchronous_standby_names").await? == [""]).then_some(()))
    })
    .await?;
    async_master_dies(&story).await
}

#[tokio::test]
async fn a_clone_that_was_interrupted_is_never_taken_for_whole() -> Result<()> {
    let mut story = group().await?;
    let before = story.cast().await?;
    let mut client = connect_postgres(story.proxy_addr()).await?;
    execute(&mut client, "CREATE TABLE big AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 100000) AS n")
        .await?;
    drop(client);
    let spare = before.spares[0].clone();
    story.kill_node(&spare)?;
    let folder = story.folder().join(&spare);
    std::fs::remove_dir_all(folder.join("postgres"))?;
    story.restart_agent(&spare)?;
    let mark = folder.join("postgres").join("incomplete");
    until("a clone under way", async || Ok(mark.exists().then_some(()))).await?;
    story.kill_agent(&spare)?;
    assert!(mark.exists(), "it was whole before it was interrupted: this test is of no use");
    story.restart_agent(&spare)?;
    until("how far the next clone is, in the status", async || {
        let shown = story.agent(&spare).await?.copying;
        Ok(shown.filter(|copying| copying.of.is_some_and(|of| of > 50_000_000)).map(drop))
    })
    .await?;
    story.cast().await?;
    assert!(story.log(&spare)?.contains("the copy was not whole: it is thrown away"), "{}", story.logs());
    assert!(!mark.exists());
    let rows = select(story.database_addr(&spare)?, "SELECT count(*)::text FROM big").await?;
    assert_eq!(rows, ["100000"]);
    Ok(())
}

/// What the client is told of a commit whose wait is cancelled, and what a failover leaves of it: a success with a
/// warning, of a write that the next master does not have. The documents name it.
#[tokio::test]
async fn a_cancelled_wait_is_answered_as_done_and_may_be_lost() -> Result<()> {
    // Long enough for the master not to let go of its hot replica in between.
    let mut story = start(quick(Engine::Postgres)?.policy("detect_after", "\"10s\"")).await?;
    let before = story.cast().await?;
    story.chain(&before).await?;
    let master = story.database_addr(&before.master)?;
    let mut client = connect_postgres(master).await?;
    execute(&mut client, "CREATE TABLE told (n int PRIMARY KEY); INSERT INTO told VALUES (1)").await?;
    story.wait_calm(LIMIT).await?;
    stop_sender(master).await?;
    let waiting = tokio::spawn(async move { execute(&mut client, "INSERT INTO told VALUES (2)").await });
    let waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT INTO told%'";
    commit_waits(master, "INSERT INTO told").await?;
    select(master, &format!("SELECT pg_cancel_backend(pid)::text {waits}")).await?;
    let told = tokio::time::timeout(LIMIT, waiting).await.context("no answer after the cancel")??;
    assert!(told.is_ok(), "the server says that it is done: {told:?}");
    story.kill_node(&before.master)?;
    story.taken_over(&before.master).await?;
    story.restart_agent(&before.master)?;
    let after = story.cast().await?;
    for node in story.node_names() {
        let rows = select(story.database_addr(&node)?, "SELECT n::text FROM told ORDER BY n").await?;
        assert_eq!(rows, ["1"], "{node}: what was acknowledged without a warning is there, the rest is not");
    }
    let tail = story.folder().join(&before.master).join("postgres").join(format!("diverged-{}", before.epoch));
    assert!(tail.join("tail.json").is_file(), "what only the former master had is saved: {after:?}");
    Ok(())
}

/// The same through a listener that understands the protocol: the client is not told that it is done. And a request to
/// cancel a query reaches the server that runs it.
#[tokio::test]
async fn a_listener_of_the_protocol_passes_no_false_success_on() -> Result<()> {
    let patient = quick(Engine::Postgres)?.policy("detect_after", "\"10s\"");
    let story = start(patient.listener("protocol = \"postgres\"")).await?;
    let cast = story.cast().await?;
    story.chain(&cast).await?;
    let master = story.database_addr(&cast.master)?;
    let mut client = connect_postgres(story.proxy_addr()).await?;
    execute(&mut client, "CREATE TABLE told (n int PRIMARY KEY); INSERT INTO told VALUES (1)").await?;

    let (host, port) = (story.proxy_addr().ip().to_string(), story.proxy_addr().port().to_string());
    let args = ["-h", &host, "-p", &port, "-U", "postgres", "-d", "postgres", "-c", "SELECT pg_sleep(600)"];
    let mut asleep = Command::new("psql").args(args).stderr(Stdio::piped()).spawn().context("psql")?;
    let sleeps = "SELECT pid::text FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    until("a query that sleeps", async || Ok((!select(master, sleeps).await?.is_empty()).then_some(()))).await?;
    anyhow::ensure!(Command::new("kill").args(["-INT", &asleep.id().to_string()]).status()?.success());
    until("the end of the query", async || Ok(asleep.try_wait()?)).await?;
    let mut words = String::new();
    asleep.stderr.take().context("no words")?.read_to_string(&mut words)?;
    assert!(words.contains("canceling statement due to user request"), "{words}");

    let sender = stop_sender(master).await?;
    let waiting = tokio::spawn(async move { execute(&mut client, "INSERT INTO told VALUES (2)").await });
    let waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT INTO told%'";
    commit_waits(master, "INSERT INTO told").await?;
    select(master, &format!("SELECT pg_cancel_backend(pid)::text {waits}")).await?;
    let told = tokio::time::timeout(LIMIT, waiting).await.context("no answer after the cancel")??;
    assert!(told.is_err(), "a success was passed on that only the master has");
    send(sender, Signal::CONT)
}

/// The data of a PostgreSQL that ran without us, stopped in an orderly way. Gives its folder.
async fn standalone(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let programs = server_program(Engine::Postgres)?.canonicalize()?;
    let programs: PathBuf = programs.parent().context("a program without a folder")?.to_owned();
    // Servers refuse to run as root.
    let root = Command::new("id").arg("-u").output()?.stdout.starts_with(b"0\n");
    let run = |program: &str, args: &[&str]| -> Result<()> {
        let mut command = Command::new(if root { Path::new("setpriv").to_owned() } else { programs.join(program) });
        if root {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(programs.join(program));
        }
        let done = said(command.args(args).current_dir(folder))?;
        anyhow::ensure!(done.code == 0, "{program}: {done:?}");
        Ok(())
    };
    if root {
        anyhow::ensure!(Command::new("chown").arg("postgres").arg(folder).status()?.success());
    }
    let (port, shown) = (free_port()?, folder.display().to_string());
    run("initdb", &["-D", &shown, "-U", "postgres", "-A", "trust"])?;
    let options = format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=");
    run("pg_ctl", &["-D", &shown, "-w", "-l", "standalone.log", "-o", &options, "start"])?;
    let mut client = connect_postgres(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    execute(&mut client, "CREATE TABLE old AS SELECT generate_series(1, 500) AS n").await?;
    drop(client);
    run("pg_ctl", &["-D", &shown, "-w", "-m", "fast", "stop"])
}

#[tokio::test]
async fn a_server_that_ran_by_itself_is_adopted_with_its_data() -> Result<()> {
    let story = start_unready(build()?.nodes(0).proxies(0)).await?;
    let folder = story.folder().join("lone-db1").join("redis");
    standalone(&folder).await?;
    let first = Lone::start(&story, "db1", |text| adopting(Engine::Postgres, text))?;
    first.healthy().await?;
    let other = Lone::start(&story, "db2", |text| of(Engine::Postgres, text))?;
    other.healthy().await?;
    for node in [&first, &other] {
        let address = SocketAddr::from(([127, 0, 0, 1], node.port));
        until("the old rows", async || {
            let rows = select(address, "SELECT count(*)::text FROM old").await?;
            Ok((rows == ["500"]).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Lets the group write so many files of its log, and throw away what nobody is owed.
async fn write_files(story: &Story, cast: &Cast, files: u32) -> Result<()> {
    let master = story.database_addr(&cast.master)?;
    for _ in 0..files {
        select(master, "SELECT pg_switch_wal()::text FROM pg_logical_emit_message(true, 'x', 'y')").await?;
    }
    for node in [&cast.master, &cast.hot] {
        let mut client = connect_postgres(story.database_addr(node)?).await?;
        tokio::time::timeout(LIMIT, execute(&mut client, "CHECKPOINT")).await.context("no checkpoint")??;
    }
    Ok(())
}

#[tokio::test]
async fn a_copy_goes_on_from_what_its_slot_kept_and_is_cloned_by_itself_beyond() -> Result<()> {
    let builder = quick(Engine::Postgres)?.setting("wal_keep_size", "\"0\"").setting("max_wal_size", "\"32MB\"");
    let mut story = start(builder.setting("max_slot_wal_keep_size", "\"64MB\"")).await?;
    let before = story.cast().await?;
    let spare = before.spares[0].clone();
    let clones = |story: &Story| -> Result<usize> { Ok(story.log(&spare)?.matches("it is cloned").count()) };
    let at_first = clones(&story)?;
    story.kill_node(&spare)?;
    write_files(&story, &before, 2).await?;
    story.restart_agent(&spare)?;
    story.cast().await?;
    assert_eq!(clones(&story)?, at_first, "its slot had kept what it lacked\n{}", story.logs());

    story.kill_node(&spare)?;
    write_files(&story, &before, 8).await?;
    story.restart_agent(&spare)?;
    story.cast().await?;
    assert_eq!(clones(&story)?, at_first + 1, "{}", story.logs());
    Ok(())
}
