//! MariaDB: what happens to a group besides faults: a switchover, an agent's upgrade, a machine set up anew, a standalone
//! server that becomes a group's beginning, and the ways in which acknowledgements and copies are spoilt from outside.

use anyhow::{Context, Result};
use cli::rig::{Process, free_port, program};
use config::Engine;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use understudy_tests::real::{
    LIMIT, Lone, Story, adopting, as_agent, as_client, build, of, quick, start, start_unready, until, writes_go_on,
};

async fn group(nodes: usize) -> Result<Story> {
    start(quick(Engine::Mariadb)?.nodes(nodes)).await
}

#[tokio::test]
async fn roles_are_switched_an_agent_is_replaced_and_a_node_set_up_anew() -> Result<()> {
    let mut story = group(3).await?;
    let before = story.cast().await?;
    let mut writer = story.client("life").await?;

    // An agent that is killed and started again finds its server as it is.
    let pid = story.database_pid(&before.master)?;
    story.restart_agent(&before.master)?;
    writes_go_on(&writer, Instant::now()).await?;
    let same = story.cast().await?;
    assert_eq!((&same.master, same.epoch), (&before.master, before.epoch));
    assert_eq!(story.database_pid(&before.master)?, pid);

    story.wait_calm(LIMIT).await?;
    let said = story.understudy(&["switchover", story.group()])?;
    assert_eq!(said.code, 0, "{said:?}");
    let asked = Instant::now();
    let switched = story.cast().await?;
    assert_eq!((&switched.master, switched.epoch), (&before.hot, before.epoch + 1));
    writes_go_on(&writer, asked).await?;
    // Nobody was fenced by its end: the former master goes on in the same run.
    assert_eq!(story.database_pid(&before.master)?, pid);

    story.kill_node(&before.master)?;
    for folder in [story.data(&before.master), story.memory(&before.master)] {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    story.restart_agent(&before.master)?;
    let rebuilt = story.cast().await?;
    assert_eq!((&rebuilt.master, rebuilt.epoch), (&switched.master, switched.epoch));
    assert_eq!(story.lost(&mut writer).await?, 0);
    let rows =
        async |node: &str| as_agent(&story, node).await?.column("SELECT COUNT(*) AS n FROM test.writes", "n").await;
    let all = rows(&rebuilt.master).await?;
    until("the rebuilt node to have every row", async || Ok((rows(&before.master).await? == all).then_some(()))).await
}

/// The server tells the client that all is well although only it has the commit. What is left to do is to notice at once.
#[tokio::test]
async fn a_wait_that_is_killed_is_told_as_a_success_and_noticed() -> Result<()> {
    // Long enough for a commit that waits to be seen before the master lets go of its hot replica.
    let patient = quick(Engine::Mariadb)?.nodes(2).policy("detect_after", "\"10s\"").policy("hang_after", "\"1m\"");
    let story = start(patient).await?;
    let before = story.cast().await?;
    let address = story.database_addr(&before.master)?;
    let mut client = as_client(address).await?;
    client.run("CREATE DATABASE app").await?;
    client.run("CREATE TABLE app.t (n INT PRIMARY KEY) ENGINE = InnoDB").await?;
    for refused in [
        "SET GLOBAL rpl_semi_sync_master_enabled = OFF",
        "SET SESSION sql_log_bin = 0",
        "SET GLOBAL read_only = OFF",
        "SET GLOBAL sync_binlog = 0",
        "RESET MASTER",
        "STOP SLAVE",
    ] {
        assert!(client.run(refused).await.is_err(), "clients may `{refused}`");
    }
    // Its server alone stops, so that its agent is still heard: the master drops it only when it notices.
    story.stop_database(&before.hot)?;
    let waiting = tokio::spawn(async move { client.run("INSERT INTO app.t VALUES (1)").await });
    let mut other = as_client(address).await?;
    let sql = "SELECT id FROM information_schema.processlist WHERE info LIKE 'INSERT INTO app.t%' AND state LIKE \
               'Waiting for semi-sync ACK%'";
    let id = until("a commit that waits", async || Ok(other.column(sql, "id").await?.pop())).await?;
    other.run(&format!("KILL QUERY {id}")).await?;
    waiting.await?.context("the server tells the client the truth: say so in docs/mariadb.md")?;
    until("the agent's notice", async || {
        let log = story.log(&before.master)?;
        let noticed = log.contains("without the hot replica's acknowledgement") || log.contains("dropping hot replica");
        Ok(noticed.then_some(()))
    })
    .await?;
    story.wake_all();
    // Once it is certified anew it has the commit, and may take over.
    let again = story.cast().await?;
    assert_eq!((&again.master, &again.hot), (&before.master, &before.hot));
    until("the commit on both", async || {
        let rows = as_agent(&story, &before.hot).await?.column("SELECT n FROM app.t", "n").await?;
        Ok((rows == ["1"]).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_spare_that_was_written_to_is_named_and_made_anew_on_request() -> Result<()> {
    let story = group(3).await?;
    let cast = story.cast().await?;
    let spare = &cast.spares[0];
    let mut client = as_client(story.proxy_addr()).await?;
    client.run("CREATE DATABASE app").await?;
    client.run("CREATE TABLE app.t (n INT PRIMARY KEY) ENGINE = InnoDB").await?;
    let mut agent = as_agent(&story, spare).await?;
    until("the table on the spare", async || Ok(agent.run("SELECT * FROM app.t").await.ok())).await?;
    agent.run("INSERT INTO app.t VALUES (666)").await?;
    client.run("INSERT INTO app.t VALUES (1)").await?;
    until("the spare to be named", async || {
        let log = story.log(spare)?;
        Ok(log.contains("this copy holds transactions that its source does not have").then_some(()))
    })
    .await?;
    let said = story.understudy(&["reinit", story.group(), spare])?;
    assert_eq!(said.code, 0, "{said:?}");
    until("a spare like the others", async || {
        let rows = as_agent(&story, spare).await?.column("SELECT n FROM app.t", "n").await?;
        Ok((rows == ["1"]).then_some(()))
    })
    .await?;
    assert_eq!(story.cast().await?.master, cast.master);
    Ok(())
}

/// The data of a server that ran without us, stopped in an orderly way.
async fn standalone(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let install = program("mariadb-install-db").context("no mariadb-install-db")?;
    let data = format!("--datadir={}", folder.display());
    let made = Command::new(install)
        .args(["--no-defaults", &data, "--auth-root-authentication-method=normal", "--skip-test-db"])
        .args(if rustix::process::geteuid().is_root() { &["--user=mysql"][..] } else { &[] })
        .output()?;
    anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = free_port()?;
    let socket = folder.with_extension("sock");
    let words = [
        "--no-defaults".to_owned(),
        data,
        format!("--port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--socket={}", folder.join("s").display()),
        format!("--pid-file={}", folder.join("pid").display()),
        "--skip-name-resolve".to_owned(),
        "--user=mysql".to_owned(),
    ];
    let server = program("mariadbd").context("no mariadbd")?;
    let log = socket.with_extension("log");
    let mut process = Process::start("standalone", &server, &words, folder, &log)?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut client = until("the standalone server", async || Ok(Some(as_client(address).await?))).await?;
    client.run("CREATE DATABASE old").await?;
    client.run("CREATE TABLE old.t (n INT PRIMARY KEY) ENGINE = InnoDB").await?;
    client.run("INSERT INTO old.t VALUES (1), (2), (3)").await?;
    process.end(LIMIT).await.context("it did not end")?;
    Ok(())
}

#[tokio::test]
async fn the_data_of_a_standalone_server_begin_a_group() -> Result<()> {
    let story = start_unready(build()?.nodes(0).proxies(0)).await?;
    standalone(&story.folder().join("lone-db1").join("redis")).await?;
    let first = Lone::start(&story, "db1", |text| adopting(Engine::Mariadb, text))?;
    first.healthy().await?;
    let second = Lone::start(&story, "db2", |text| of(Engine::Mariadb, text))?;
    second.healthy().await?;
    for node in [&first, &second] {
        until("the old rows", async || {
            let mut client = as_client(SocketAddr::from(([127, 0, 0, 1], node.port))).await?;
            let rows = client.column("SELECT n FROM old.t ORDER BY n", "n").await?;
            Ok((rows == ["1", "2", "3"]).then_some(()))
        })
        .await?;
    }
    let record = story.store()?.group(story.group()).await?.view.record.context("no record")?.0;
    assert_eq!(record.master.map(|m| m.id.to_string()).as_deref(), Some("db1"));
    Ok(())
}
