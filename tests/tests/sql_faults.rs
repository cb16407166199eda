//! What can be wrong with the folder, the programs and the copies of a PostgreSQL or a MariaDB: each is named, and nothing
//! that is not ours is touched.

use anyhow::{Context, Result};
use cli::rig::understudy_binary;
use config::Engine;
use election::{Phase, Role};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use understudy_tests::real::{
    Lone, Story, as_agent, as_client, async_master_dies, build, connect_postgres, contents, execute, of, quick, said,
    select, start, start_unready, until,
};

/// What an agent's log says when it fetches a whole copy of a MariaDB.
const COPIES: &str = "copying the data of another node";

/// Only Consul.
async fn consul() -> Result<Story> {
    start_unready(build()?.nodes(0).proxies(0)).await
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() -> Result<()> {
    let story = consul().await?;
    for (engine, package) in [(Engine::Postgres, "postgresql"), (Engine::Mariadb, "mariadb-server")] {
        let nowhere =
            |text: String| of(engine, text.replace("[[instance]]", "[[instance]]\nbin = \"/nowhere/server\""));
        let mut lone = Lone::start(&story, engine.as_str(), nowhere)?;
        assert_eq!(lone.ended().await?, 78, "{}", lone.log()?);
        let log = lone.log()?;
        assert!(log.contains("instance[0].bin") && log.contains("/nowhere/server"), "{log}");
        // And when PATH has none either: for PostgreSQL there is a second place that is looked at.
        let text = std::fs::read_to_string(lone.folder.join("agent.toml"))?;
        let empty = lone.folder.join("empty");
        std::fs::create_dir_all(&empty)?;
        let text = text.replace("/nowhere/server", &empty.display().to_string());
        std::fs::write(lone.folder.join("agent.toml"), text)?;
        let mut agent = Command::new(understudy_binary()?);
        agent.arg("agent").arg("--config").arg(lone.folder.join("agent.toml")).env("PATH", "/nowhere");
        let said = said(&mut agent)?;
        assert_ne!(said.code, 0);
        said.holds(&[&format!("install {package}")])?;
    }
    Ok(())
}

/// A node is given the folder of a node of another group of the same name.
async fn another_groups_folder(engine: Engine) -> Result<()> {
    let (elsewhere, story) = (consul().await?, consul().await?);
    let stranger = Lone::start(&elsewhere, "db1", |text| of(engine, text))?;
    until("a group of its own, with its marker", async || {
        let said = stranger.status().await?;
        Ok((said.role == Some(Role::Master) && said.phase == Some(Phase::Active) && said.healthy).then_some(()))
    })
    .await?;
    let theirs = stranger.folder.join("redis");
    stranger.kill().await?;
    let first = Lone::start(&story, "db2", |text| of(engine, text))?;
    first.healthy().await?;
    let folder = story.folder().join("lone-db1").join("redis");
    std::fs::create_dir_all(folder.parent().context("no folder above")?)?;
    std::fs::rename(&theirs, &folder)?;
    let data = folder.join(if engine == Engine::Postgres { "pgdata/base" } else { "mysql-data/mysql" });
    let before = contents(&data)?;
    let node = Lone::start(&story, "db1", |text| of(engine, text))?;
    until("a word about the data", async || {
        let said = node.status().await?;
        anyhow::ensure!(said.reason_code == "other_data", "{}: {}\n{}", said.reason_code, said.reason, node.log()?);
        Ok(Some(()))
    })
    .await?;
    let after: Vec<_> = contents(&data)?.into_keys().collect();
    assert_eq!(after, before.into_keys().collect::<Vec<_>>(), "files came or went");
    let said = story.understudy(&["reinit", story.group(), "db1"])?;
    assert_eq!(said.code, 0, "{said:?}");
    node.healthy().await
}

#[tokio::test]
async fn the_data_of_another_postgres_group_are_named_and_left_alone() -> Result<()> {
    another_groups_folder(Engine::Postgres).await
}

#[tokio::test]
async fn the_data_of_another_mariadb_group_are_named_and_left_alone() -> Result<()> {
    another_groups_folder(Engine::Mariadb).await
}

#[tokio::test]
async fn a_mariadb_copy_that_lacks_purged_logs_is_copied_anew_by_itself() -> Result<()> {
    let mut story = start(quick(Engine::Mariadb)?).await?;
    let before = story.cast().await?;
    let spare = before.spares[0].clone();
    let mut client = as_client(story.proxy_addr()).await?;
    client.run("CREATE DATABASE app").await?;
    client.run("CREATE TABLE app.t (n INT PRIMARY KEY) ENGINE = InnoDB").await?;
    story.kill_node(&spare)?;
    client.run("INSERT INTO app.t VALUES (1)").await?;
    // Whoever feeds it throws away what it lacks.
    let mut hot = as_agent(&story, &before.hot).await?;
    until("the row on the hot replica", async || {
        Ok((hot.column("SELECT n FROM app.t", "n").await? == ["1"]).then_some(()))
    })
    .await?;
    hot.run("FLUSH LOCAL BINARY LOGS").await?;
    // What the link of before still reads stays until it is noticed that the link has ended.
    until("a log without what the spare lacks", async || {
        let logs = hot.column("SHOW BINARY LOGS", "Log_name").await?;
        hot.run(&format!("PURGE BINARY LOGS TO '{}'", logs.last().context("no log")?)).await?;
        Ok((logs.len() == 1).then_some(()))
    })
    .await?;
    let copied = story.log(&spare)?.matches(COPIES).count();
    story.restart_agent(&spare)?;
    until("another copy", async || Ok((story.log(&spare)?.matches(COPIES).count() == copied + 1).then_some(())))
        .await?;
    story.cast().await?;
    until("the row on the spare", async || {
        Ok((as_agent(&story, &spare).await?.column("SELECT n FROM app.t", "n").await? == ["1"]).then_some(()))
    })
    .await
}

/// What a full disk leaves of an event in its source's log, no copy can receive.
#[tokio::test]
async fn a_mariadb_copy_whose_source_has_a_broken_log_is_copied_anew_by_itself() -> Result<()> {
    let mut story = start(quick(Engine::Mariadb)?).await?;
    let before = story.cast().await?;
    let spare = before.spares[0].clone();
    let mut client = as_client(story.proxy_addr()).await?;
    client.run("CREATE DATABASE app").await?;
    client.run("CREATE TABLE app.t (n VARCHAR(64) PRIMARY KEY) ENGINE = InnoDB").await?;
    story.kill_node(&spare)?;
    client.run("INSERT INTO app.t VALUES ('this is what will be broken')").await?;
    let mut hot = as_agent(&story, &before.hot).await?;
    until("the row on the hot replica", async || {
        Ok((hot.column("SELECT n FROM app.t", "n").await?.len() == 1).then_some(()))
    })
    .await?;
    let logs = hot.column("SHOW BINARY LOGS", "Log_name").await?;
    let log = story.data(&before.hot).join("mysql-data").join(logs.last().context("no log")?);
    let mut bytes = std::fs::read(&log)?;
    let word = b"will be broken";
    let at = bytes.windows(word.len()).position(|window| window == word).context("no such row in the log")?;
    bytes[at] = b'W';
    // The server holds it open: it is written over, not replaced.
    std::fs::OpenOptions::new().write(true).open(&log)?.write_all_at(&bytes[at..=at], at.try_into()?)?;
    let copied = story.log(&spare)?.matches(COPIES).count();
    story.restart_agent(&spare)?;
    until("another copy", async || {
        let log = story.log(&spare)?;
        anyhow::ensure!(
            log.matches(COPIES).count() == copied + 1,
            "{log}\n{}",
            std::fs::read_to_string(story.data(&spare).join("mariadb.log"))?
        );
        Ok(Some(()))
    })
    .await?;
    story.cast().await?;
    until("the row on the spare", async || {
        Ok((as_agent(&story, &spare).await?.column("SELECT n FROM app.t", "n").await?.len() == 1).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_mariadb_copy_that_was_interrupted_is_never_taken_for_whole() -> Result<()> {
    let mut story = start(quick(Engine::Mariadb)?).await?;
    let before = story.cast().await?;
    let mut client = as_client(story.proxy_addr()).await?;
    client.run("CREATE DATABASE app").await?;
    client.run("CREATE TABLE app.big (n INT PRIMARY KEY, x VARCHAR(600)) ENGINE = InnoDB").await?;
    for first in (0..100_000).step_by(5_000) {
        let rows = format!("SELECT seq, REPEAT('x', 600) FROM app.seq_{}_to_{}", first + 1, first + 5_000);
        client.run(&format!("INSERT INTO app.big {rows}")).await?; // A hot replica acknowledges it within its time.
    }
    let spare = before.spares[0].clone();
    story.kill_node(&spare)?;
    std::fs::remove_dir_all(story.data(&spare))?;
    std::fs::remove_dir_all(story.memory(&spare))?;
    story.restart_agent(&spare)?;
    let half = story.data(&spare).join("mysql-data.copy");
    // It is shown how far it is.
    until("a copy under way, in the status", async || {
        let said = story.agent(&spare).await?;
        let seen = said.copying.filter(|copying| copying.bytes > 0 && half.exists()).map(drop);
        anyhow::ensure!(seen.is_some(), "{:?}, {}: {}", said.copying, said.reason, story.log(&spare)?);
        Ok(seen)
    })
    .await?;
    story.kill_agent(&spare)?;
    assert!(half.exists(), "it was whole before it was interrupted: this test is of no use");
    story.restart_agent(&spare)?;
    story.cast().await?;
    assert!(!half.exists());
    let rows = as_agent(&story, &spare).await?.column("SELECT COUNT(*) AS n FROM app.big", "n").await?;
    assert_eq!(rows, ["100000"]);
    Ok(())
}

#[tokio::test]
async fn an_async_mariadb_group_waits_for_nobody_and_fails_over() -> Result<()> {
    let story = start(quick(Engine::Mariadb)?.policy("durability", "\"async\"")).await?;
    let before = story.cast().await?;
    let sql = "SELECT @@global.rpl_semi_sync_master_enabled AS on_";
    until("commits that wait for nobody", async || {
        Ok((as_agent(&story, &before.master).await?.column(sql, "on_").await? == ["0"]).then_some(()))
    })
    .await?;
    async_master_dies(&story).await
}

/// Somebody promotes a copy by hand and writes to it: what only it has is saved, and it becomes a copy again.
#[tokio::test]
async fn a_postgres_spare_that_was_promoted_by_hand_becomes_a_copy_again() -> Result<()> {
    let story = start(quick(Engine::Postgres)?).await?;
    let before = story.cast().await?;
    let spare = &before.spares[0];
    let mut client = connect_postgres(story.proxy_addr()).await?;
    execute(&mut client, "CREATE TABLE t (n int PRIMARY KEY)").await?;
    let address = story.database_addr(spare)?;
    until("the table on the spare", async || {
        Ok((select(address, "SELECT to_regclass('t')::text").await? == ["t"]).then_some(()))
    })
    .await?;
    select(address, "SELECT pg_promote(false)::text").await?;
    until("the agent to fence it", async || {
        let log = story.log(spare)?;
        Ok(log.contains("it is saved").then_some(()))
    })
    .await?;
    execute(&mut client, "INSERT INTO t VALUES (1)").await?;
    until("a spare like the others", async || {
        Ok((select(address, "SELECT n::text FROM t WHERE pg_is_in_recovery()").await? == ["1"]).then_some(()))
    })
    .await?;
    let after = story.cast().await?;
    assert_eq!((&after.master, after.epoch), (&before.master, before.epoch));
    Ok(())
}

/// An agent that is not root runs its server as itself.
#[tokio::test]
async fn an_agent_that_is_not_root_runs_its_server_as_itself() -> Result<()> {
    let story = consul().await?;
    let lone = Lone::start_without_rights(&story, "plain", |text| of(Engine::Postgres, text))?;
    lone.healthy().await?;
    let owner = |pid: u32| std::fs::metadata(format!("/proc/{pid}")).map(|found| found.uid());
    let server = owner(lone.database_pid(story.group())?)?;
    assert_eq!(server, owner(lone.process.pid())?, "the server runs as another than its agent");
    assert_ne!(server, 0);
    let mut client = connect_postgres(([127, 0, 0, 1], lone.port).into()).await?;
    execute(&mut client, "CREATE TABLE t (n int)").await
}
