//! What can be wrong around an agent, a command or a proxy: each is said clearly, and harms nobody else.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use understudy_tests::real::{LIMIT, Lone, SWING, Story, build, run, said, start, start_unready, until};

/// Only Consul.
async fn consul() -> Result<Story> {
    start_unready(build()?.nodes(0).proxies(0)).await
}

#[tokio::test]
async fn without_a_redis_the_agent_says_what_to_install() -> Result<()> {
    let story = consul().await?;
    let named =
        |text: String| text.replace("engine = \"redis\"", "engine = \"redis\"\nbin = \"/nowhere/redis-server\"");
    let mut lone = Lone::start(&story, "db1", named)?;
    assert_eq!(lone.ended().await?, 78, "a program that is not there is a fault of the file");
    let log = lone.log()?;
    assert!(log.contains("instance[0].bin") && log.contains("/nowhere/redis-server"), "{log}");

    // And when PATH has none either.
    let mut agent = Command::new(cli::rig::understudy_binary()?);
    let text = std::fs::read_to_string(lone.folder.join("agent.toml"))?;
    std::fs::write(lone.folder.join("agent.toml"), text.replace("bin = \"/nowhere/redis-server\"\n", ""))?;
    let outcome = said(agent.arg("agent").arg("--config").arg(lone.folder.join("agent.toml")).env("PATH", "/nowhere"))?;
    assert_ne!(outcome.code, 0);
    outcome.holds(&["redis-server", "install redis-server"])
}

#[tokio::test]
async fn a_taken_port_is_said_and_tried_again_until_it_is_free() -> Result<()> {
    let story = consul().await?;
    let squatter = TcpListener::bind("127.0.0.1:0")?;
    let taken = squatter.local_addr()?.port();
    let lone = Lone::start(&story, "db1", |text| {
        let port = text.lines().find(|l| l.starts_with("port = ")).unwrap_or_default().to_owned();
        text.replace(&port, &format!("port = {taken}"))
    })?;
    until("a word about the port", async || {
        let reason = lone.status().await?.reason;
        anyhow::ensure!(reason.contains("in use"), "{reason}");
        Ok(Some(()))
    })
    .await?;
    let view = story.store()?.group(story.group()).await;
    assert!(view.is_err() || view.is_ok_and(|g| g.view.record.is_none()), "a group was begun without a database");
    drop(squatter);
    until("a master on the freed port", async || Ok(lone.status().await?.healthy.then_some(()))).await
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() -> Result<()> {
    let story = consul().await?;
    // As root any folder can be written; one below a file can nobody.
    let file = story.folder().join("plain-file");
    std::fs::write(&file, "no folder")?;
    for key in ["redis", "agent"] {
        let below = |text: String| text.replace(&format!("lone-{key}/{key}"), "plain-file/below");
        let mut lone = Lone::start(&story, key, below)?;
        assert_ne!(lone.ended().await?, 0);
        let log = lone.log()?;
        assert!(log.contains("data_dir") && log.contains("plain-file/below"), "{log}");
    }
    assert_eq!(std::fs::read_to_string(&file)?, "no folder");
    Ok(())
}

#[tokio::test]
async fn data_that_is_not_ours_is_left_as_it_is_and_takes_no_part() -> Result<()> {
    let story = consul().await?;
    let folder = story.folder().join("lone-db1").join("redis");
    std::fs::create_dir_all(folder.join("appendonlydir"))?;
    std::fs::write(folder.join("dump.rdb"), b"REDIS0010 somebody's data")?;
    std::fs::write(folder.join("appendonlydir/appendonly.aof.1.incr.aof"), b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n")?;
    let before = contents(&folder)?;
    let stranger = Lone::start(&story, "db1", |text| text)?;
    until("a word about the data", async || {
        let reason = stranger.status().await?.reason;
        anyhow::ensure!(reason.contains("holds data that Understudy did not write"), "{reason}");
        Ok(Some(()))
    })
    .await?;
    // A node with an empty folder begins the group without it.
    let other = Lone::start(&story, "db2", |text| text)?;
    until("a master", async || Ok(other.status().await?.healthy.then_some(()))).await?;
    assert!(!stranger.status().await?.healthy);
    let group = story.store()?.group(story.group()).await?;
    let record = group.view.record.context("no record")?.0;
    assert_eq!(record.master.map(|m| m.id.to_string()).as_deref(), Some("db2"));
    assert_eq!(record.replica, None, "data that is not ours was certified");
    assert_eq!(contents(&folder)?, before, "something in the folder was changed");
    Ok(())
}

/// Every file below a folder, byte for byte.
fn contents(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(contents(&path)?);
        }
        let bytes = if path.is_dir() { Vec::new() } else { std::fs::read(&path)? };
        found.insert(path.display().to_string(), bytes);
    }
    Ok(found)
}

#[tokio::test]
async fn a_second_node_of_the_same_name_does_not_start() -> Result<()> {
    let story = start(build()?.nodes(1).proxies(0)).await?;
    let mut twin = Lone::start(&story, "db1", |text| text)?;
    assert_ne!(twin.ended().await?, 0);
    let log = twin.log()?;
    assert!(log.contains("an agent of this name runs at"), "{log}");
    assert_eq!(story.status().await?.active_master(), Some("db1"));
    Ok(())
}

#[test]
fn every_fault_of_a_file_is_told_at_once_with_exit_code_78() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agent.toml").display().to_string();
    let text = "[node]\nname = \"db 1\"\naddress = \"127.0.0.1\"\ndata_dir = \"relative\"\n\n\
                [[instance]]\ngroup = \"Upper\"\nengine = \"oracle\"\nport = 70000\nprioritty = 1\n\
                data_dir = \"/tmp/understudy-never\"\n";
    std::fs::write(&file, text)?;
    let words = ["node.name", "node.data_dir", "instance[0].group", "instance[0].engine", "instance[0].port"];
    for args in [vec!["check", file.as_str()], vec!["agent", "--config", file.as_str()]] {
        let said = run(&args)?;
        assert_eq!(said.code, 78, "{said:?}");
        said.holds(&words)?;
        said.holds(&["instance[0].prioritty", "did you mean `priority`?", "agent.toml:10:1"])?;
    }
    let gone = run(&["agent", "--config", "/nowhere/agent.toml"])?;
    assert_eq!(gone.code, 78, "{gone:?}");
    gone.holds(&["/nowhere/agent.toml"])
}

#[test]
fn what_is_not_built_yet_passes_the_check_and_does_not_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("proxy.toml").display().to_string();
    let text = "[proxy]\nname = \"p\"\naddress = \"127.0.0.1\"\n\n[[listener]]\nlisten = \"127.0.0.1:6380\"\n\
                groups = [\"a\", \"b\"]\nprotocol = \"redis\"\n";
    std::fs::write(&file, text)?;
    assert_eq!(run(&["check", &file])?.code, 0);
    let said = run(&["proxy", "--config", &file])?;
    assert_eq!(said.code, 78, "{said:?}");
    said.holds(&["proxy.toml:7:", "listener[0].groups", "cannot do that yet"])
}

#[tokio::test]
async fn commands_without_consul_or_a_group_fail_in_one_sentence() -> Result<()> {
    let nowhere = format!("127.0.0.1:{}", cli::rig::free_port()?);
    for args in [
        vec!["status"],
        vec!["status", "demo", "--json"],
        vec!["switchover", "demo"],
        vec!["explain", "demo"],
        vec!["history", "demo"],
    ] {
        run(&[&args[..], &["--consul", &nowhere]].concat())?.refused(69, &["no Consul answers", &nowhere])?;
    }
    let story = consul().await?;
    for verb in ["status", "switchover", "explain", "history"] {
        story.understudy(&[verb, "demo"])?.refused(1, &["there is no group `demo`"])?;
    }
    Ok(())
}

#[tokio::test]
async fn a_thousand_connections_and_a_silent_one_disturb_no_writer() -> Result<()> {
    let story = start(build()?.nodes(2)).await?;
    let mut writer = story.client("crowd").await?;
    let mut silent = TcpStream::connect(story.proxy_addr())?;
    let since = Instant::now();
    let mut crowd = Vec::new();
    for number in 0..1_000 {
        crowd.push(TcpStream::connect(story.proxy_addr()).with_context(|| format!("connection {number}"))?);
    }
    // Every one of them is served.
    for (number, client) in crowd.iter_mut().enumerate() {
        client.set_read_timeout(Some(LIMIT))?;
        std::io::Write::write_all(client, b"PING\r\n")?;
        let mut answer = [0; 7];
        client.read_exact(&mut answer).with_context(|| format!("connection {number}"))?;
        assert_eq!(&answer, b"+PONG\r\n");
    }
    writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
    let gap = writer.longest_gap(since).context("no writes")?;
    assert!(gap < Duration::from_secs(3), "the writer stood still for {gap:?}");
    drop(crowd);
    std::io::Write::write_all(&mut silent, b"PING\r\n")?;
    silent.set_read_timeout(Some(LIMIT))?;
    let mut answer = [0; 7];
    silent.read_exact(&mut answer)?;
    assert_eq!(&answer, b"+PONG\r\n", "who was silent for a while is served as well");
    let status = story.cast().await?;
    assert_eq!(status.epoch, 1, "a crowd is no reason for a takeover");
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}
