//! MariaDB: the master dies, its node dies, it hangs, its hot replica dies, everything loses power; a client behind the
//! proxy loses nothing that was acknowledged.

use anyhow::{Context, Result};
use config::Engine;
use std::time::Instant;
use understudy_tests::real::{LIMIT, Story, as_agent, as_client, quick, start, until, writes_go_on};

/// What an agent's log says when it fetches a whole copy.
const COPIES: &str = "copying the data of another node";

async fn group(detect_after: &str) -> Result<Story> {
    start(quick(Engine::Mariadb)?.policy("detect_after", detect_after)).await
}

fn copies(story: &Story, node: &str) -> Result<usize> {
    Ok(story.log(node)?.matches(COPIES).count())
}

#[tokio::test]
async fn the_masters_database_is_killed_and_comes_back_without_a_copy() -> Result<()> {
    let story = group("\"1s\"").await?;
    let before = story.cast().await?;
    story.chain(&before).await?;
    let copied = copies(&story, &before.master)?;
    let mut writer = story.client("kill").await?;
    let died = story.kill_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()), "only the certified copy may take over");
    writes_go_on(&writer, died).await?;
    let after = story.cast().await?;
    assert_eq!((&after.master, &after.hot), (&before.hot, &before.spares[0]), "the spare is certified next");
    story.chain(&after).await?;
    assert_eq!(
        copies(&story, &before.master)?,
        copied,
        "what nobody acknowledged is rolled back; a copy is not needed"
    );
    assert!(story.data(&before.master).join(format!("diverged-{}", before.epoch)).is_dir(), "and kept");

    // The hot replica is lost: the other copy is certified in its place, and writes go on meanwhile.
    let died = story.kill_database(&after.hot)?;
    writes_go_on(&writer, died).await?;
    let third = story.cast().await?;
    assert_eq!((&third.master, third.epoch), (&after.master, after.epoch), "the master stays");
    assert_eq!(story.lost(&mut writer).await?, 0);
    let last = story.history().await?.pop().context("no history")?;
    assert_eq!((last.epoch, last.master.as_str()), (before.epoch + 1, before.hot.as_str()));
    assert!(last.reason.contains("master process died"), "{}", last.reason);
    assert_eq!(last.data_loss, None);
    Ok(())
}

#[tokio::test]
async fn a_commit_that_nobody_acknowledged_is_kept_aside_and_rolled_back() -> Result<()> {
    // Long enough for the master not to let go of its hot replica in between.
    let mut story = group("\"10s\"").await?;
    let before = story.cast().await?;
    let mut client = as_client(story.database_addr(&before.master)?).await?;
    client.run("CREATE DATABASE app").await?;
    client.run("CREATE TABLE app.tail (n INT PRIMARY KEY) ENGINE = InnoDB").await?;
    story.wait_calm(LIMIT).await?;
    // The hot replica receives nothing, nobody tells it to, and the master's commit waits.
    story.stop_agent(&before.hot)?;
    as_agent(&story, &before.hot).await?.run("STOP SLAVE IO_THREAD").await?;
    let waiting = tokio::spawn(async move { client.run("INSERT INTO app.tail VALUES (4711)").await });
    let mut agent = as_agent(&story, &before.master).await?;
    until("a commit that waits", async || {
        let sql = "SELECT id FROM information_schema.processlist WHERE info LIKE 'INSERT INTO app.tail%' AND state LIKE \
                   'Waiting for semi-sync ACK%'";
        Ok((!agent.column(sql, "id").await?.is_empty()).then_some(()))
    })
    .await?;
    story.kill_node(&before.master)?;
    story.wake_all();
    let said = waiting.await?;
    assert!(said.is_err(), "it was acknowledged: {said:?}");
    story.taken_over(&before.master).await?;
    story.restart_agent(&before.master)?;
    let after = story.cast().await?;
    assert_eq!(after.master, before.hot);
    for node in story.node_names() {
        let mut server = as_agent(&story, &node).await?;
        assert!(server.column("SELECT n FROM app.tail", "n").await?.is_empty(), "{node}\n{}", story.logs());
    }
    let kept = story.data(&before.master).join(format!("diverged-{}", before.epoch));
    let logs = std::fs::read_dir(&kept)?.count();
    assert!(logs >= 1, "{}", kept.display());
    Ok(())
}

#[tokio::test]
async fn nodes_die_hang_and_lose_power_together() -> Result<()> {
    let mut story = group("\"1s\"").await?;
    let before = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let mut writer = story.client("nodes").await?;
    let died = story.kill_node(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    writes_go_on(&writer, died).await?;
    story.restart_agent(&before.master)?;
    let second = story.cast().await?;
    assert_eq!(second.epoch, before.epoch + 1, "its coming back is no takeover");

    story.wait_calm(LIMIT).await?;
    let stopped = story.stop_node(&second.master)?;
    let status = story.taken_over(&second.master).await?;
    assert_eq!(status.active_master(), Some(second.hot.as_str()));
    writes_go_on(&writer, stopped).await?;
    story.cont_node(&second.master)?;
    let third = story.cast().await?;
    assert!(third.spares.contains(&second.master), "{third:?}");
    story.chain(&third).await?;

    let cut = Instant::now();
    for node in story.node_names() {
        story.kill_node(&node)?;
    }
    story.start_dead_agents()?;
    writes_go_on(&writer, cut).await?;
    let fourth = story.cast().await?;
    assert!([&third.master, &third.hot].contains(&&fourth.master), "{third:?} {fourth:?}");
    assert_eq!(story.lost(&mut writer).await?, 0);
    let last = story.history().await?.pop().context("no history")?;
    assert_eq!(last.data_loss, None, "both disks hold what was acknowledged");
    Ok(())
}
