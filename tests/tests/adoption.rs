//! A Redis that ran by itself is taken over with its data, when the file says so, and only as the beginning of a group.

use anyhow::{Context, Result};
use cli::rig::{Process, free_port, program};
use std::net::SocketAddr;
use std::path::Path;
use understudy_tests::real::{Lone, Story, build, connect, contents, start_unready, until};

/// How many keys the Redis has that is to be adopted.
const KEYS: u64 = 500;

/// The data of a Redis that ran without us, written by it and stopped in an orderly way.
async fn standalone(folder: &Path, append_only: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let port = free_port()?;
    let words = format!("--port {port} --bind 127.0.0.1 --appendonly {append_only}");
    let args: Vec<&str> = words.split(' ').chain(["--save", "", "--dir", "."]).collect();
    let log = folder.with_extension("standalone.log");
    let redis = program("redis-server").context("no redis-server")?;
    let mut process = Process::start("standalone", &redis, args, folder, &log)?;
    let mut client = until("the standalone Redis", async || Ok(Some(connect(loopback(port)).await?))).await?;
    let mut keys = redis::pipe();
    for number in 0..KEYS {
        keys.set(format!("old:{number}"), number).ignore();
    }
    keys.query_async::<()>(&mut client).await?;
    if append_only == "no" {
        redis::cmd("SAVE").query_async::<()>(&mut client).await?;
    }
    process.end(understudy_tests::real::LIMIT).await.context("it did not end")?;
    Ok(())
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// How many of the old keys a database has.
async fn old_keys(port: u16) -> Result<u64> {
    let mut client = connect(loopback(port)).await?;
    let mut found = redis::cmd("EXISTS");
    for number in 0..KEYS {
        found.arg(format!("old:{number}"));
    }
    Ok(found.query_async(&mut client).await?)
}

fn adopting(text: String) -> String {
    text.replace("engine = \"redis\"", "engine = \"redis\"\nadopt = true")
}

/// A group of three of which the first brings data.
async fn adopted(append_only: &str) -> Result<()> {
    let story = start_unready(build()?.nodes(0).proxies(0)).await?;
    standalone(&story.folder().join("lone-db1").join("redis"), append_only).await?;
    // The others are there first, and wait for nobody unless they know of it: the one that adopts is announced first.
    let first = Lone::start(&story, "db1", adopting)?;
    first.healthy().await?;
    let others = [Lone::start(&story, "db2", |text| text)?, Lone::start(&story, "db3", |text| text)?];
    for other in &others {
        other.healthy().await?;
        until("every old key", async || {
            let found = old_keys(other.port).await?;
            anyhow::ensure!(found == KEYS, "{found} of {KEYS}");
            Ok(Some(()))
        })
        .await?;
    }
    let record = story.store()?.group(story.group()).await?.view.record.context("no record")?.0;
    assert_eq!(record.master.map(|m| m.id.to_string()).as_deref(), Some("db1"));
    assert_eq!(old_keys(first.port).await?, KEYS, "the group does not begin with the data");

    dies_and_has_them_still(&story, &first, &others).await
}

/// What was adopted outlives its first master.
async fn dies_and_has_them_still(story: &Story, first: &Lone, others: &[Lone]) -> Result<()> {
    let hot = until("a hot replica", async || {
        let record = story.store()?.group(story.group()).await?.view.record.context("no record")?.0;
        Ok(record.replica.map(|r| r.id.to_string()))
    })
    .await?;
    understudy_tests::real::send(first.database_pid(story.group())?, rustix::process::Signal::KILL)?;
    until("the hot replica as master", async || {
        let record = story.store()?.group(story.group()).await?.view.record.context("no record")?.0;
        let open = record.phase == election::Phase::Active && record.epoch == 2;
        Ok(record.master.filter(|m| open && m.id.as_str() == hot))
    })
    .await?;
    let index = usize::from(hot == "db3");
    assert_eq!(old_keys(others[index].port).await?, KEYS);
    first.healthy().await?;
    assert_eq!(old_keys(first.port).await?, KEYS, "it came back as a copy");
    Ok(())
}

#[tokio::test]
async fn a_snapshot_is_what_the_group_begins_with() -> Result<()> {
    adopted("no").await
}

#[tokio::test]
async fn an_append_only_file_is_what_the_group_begins_with() -> Result<()> {
    adopted("yes").await
}

#[tokio::test]
async fn who_comes_with_data_when_there_is_a_group_is_not_touched() -> Result<()> {
    let story = start_unready(build()?.nodes(0).proxies(0)).await?;
    let folder = story.folder().join("lone-db2").join("redis");
    standalone(&folder, "no").await?;
    let first = Lone::start(&story, "db1", |text| text)?;
    first.healthy().await?;
    let before = contents(&folder)?;
    let late = Lone::start(&story, "db2", adopting)?;
    let reason = until("a word about the data", async || {
        let said = late.status().await?;
        anyhow::ensure!(said.reason_code == "adopt_too_late", "{}: {}", said.reason_code, said.reason);
        Ok(Some(said.reason))
    })
    .await?;
    assert!(reason.contains("nothing was started or touched") && reason.contains("adopt = false"), "{reason}");
    // It is given the time that a start and a copy would need.
    let mut client = connect(loopback(first.port)).await?;
    let since = std::time::Instant::now();
    while since.elapsed() < std::time::Duration::from_secs(3) {
        redis::cmd("SET").arg("new").arg(1).query_async::<()>(&mut client).await?;
        assert!(connect(loopback(late.port)).await.is_err(), "a database was started on somebody's data");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(contents(&folder)?, before, "something in the folder was changed");
    assert!(!late.status().await?.healthy);
    Ok(())
}
