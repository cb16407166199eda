//! PostgreSQL: the master dies, its node dies, the hot replica dies, all lose power; a client behind the proxy loses
//! nothing that was acknowledged.

use anyhow::{Context, Result};
use config::Engine;
use std::time::{Duration, Instant};
use understudy_tests::real::{
    LIMIT, Story, commit_waits, connect_postgres, execute, quick, select, start, stop_sender, writes_go_on,
};

async fn group() -> Result<Story> {
    start(quick(Engine::Postgres)?).await
}

#[tokio::test]
async fn the_masters_database_is_killed_and_it_comes_back_wound_back() -> Result<()> {
    let story = group().await?;
    let before = story.cast().await?;
    story.chain(&before).await?;
    let mut writer = story.client("kill").await?;

    let died = story.kill_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()), "only the certified copy may take over");
    writes_go_on(&writer, died).await?;
    let after = story.cast().await?;
    assert_eq!((&after.master, &after.hot), (&before.hot, &before.spares[0]), "the spare is certified next");
    story.chain(&after).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    let last = story.history().await?.pop().context("no history")?;
    assert_eq!((last.epoch, last.master.as_str()), (before.epoch + 1, before.hot.as_str()));
    assert!(last.reason.contains("master process died"), "{}", last.reason);
    assert_eq!(last.data_loss, None);
    Ok(())
}

#[tokio::test]
async fn a_commit_that_nobody_acknowledged_is_saved_and_wound_back() -> Result<()> {
    // Long enough for the master not to let go of its hot replica in between.
    let mut story = start(quick(Engine::Postgres)?.policy("detect_after", "\"10s\"")).await?;
    let before = story.cast().await?;
    story.chain(&before).await?;
    let master = story.database_addr(&before.master)?;
    let mut client = connect_postgres(master).await?;
    execute(&mut client, "CREATE TABLE tail (n int PRIMARY KEY)").await?;
    story.wait_calm(LIMIT).await?;
    // The hot replica is not sent what the master writes from now on.
    stop_sender(master).await?;
    let waiting = tokio::spawn(async move {
        let said = execute(&mut client, "INSERT INTO tail VALUES (1)").await;
        (said, client)
    });
    commit_waits(master, "INSERT").await?;
    story.kill_node(&before.master)?;
    let (said, _) = waiting.await?;
    assert!(said.is_err(), "it was acknowledged: {said:?}");
    story.taken_over(&before.master).await?;
    story.restart_agent(&before.master)?;
    let after = story.cast().await?;
    assert_eq!(after.master, before.hot);
    for node in story.node_names() {
        assert!(select(story.database_addr(&node)?, "SELECT n::text FROM tail").await?.is_empty(), "{node}");
    }
    assert!(story.log(&before.master)?.contains("the copy is wound back"), "it was cloned\n{}", story.logs());
    let folder = story.folder().join(&before.master).join("postgres");
    assert!(folder.join(format!("diverged-{}", before.epoch)).join("tail.json").is_file(), "{}", story.logs());
    Ok(())
}

#[tokio::test]
async fn a_whole_node_dies_and_comes_back_as_a_spare() -> Result<()> {
    let mut story = group().await?;
    let before = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let mut writer = story.client("node").await?;
    let died = story.kill_node(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    writes_go_on(&writer, died).await?;
    story.restart_agent(&before.master)?;
    let after = story.cast().await?;
    assert_eq!(after.epoch, before.epoch + 1, "its coming back is no takeover");
    story.chain(&after).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_hung_master_is_deposed_and_fenced_when_it_wakes() -> Result<()> {
    let story = group().await?;
    let before = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let mut writer = story.client("hang").await?;
    let stopped = story.stop_node(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    writes_go_on(&writer, stopped).await?;
    story.cont_node(&before.master)?;
    let after = story.cast().await?;
    story.chain(&after).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn the_next_spare_is_certified_when_the_hot_replica_is_lost() -> Result<()> {
    let story = group().await?;
    let before = story.cast().await?;
    let mut writer = story.client("replica").await?;
    let died = story.kill_database(&before.hot)?;
    writes_go_on(&writer, died).await?;
    story.wait_until("the spare as hot replica", LIMIT, |s| s.hot_replica() == Some(before.spares[0].as_str())).await?;
    let after = story.cast().await?;
    assert_eq!((&after.master, after.epoch), (&before.master, before.epoch));
    story.chain(&after).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_power_cut_of_everything_loses_nothing() -> Result<()> {
    let mut story = group().await?;
    let mut writer = story.client("power").await?;
    for node in story.node_names() {
        story.kill_node(&node)?;
    }
    let cut = Instant::now();
    story.start_dead_agents()?;
    writes_go_on(&writer, cut).await?;
    let after = story.cast().await?;
    story.chain(&after).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    assert!(story.history().await?.iter().all(|entry| entry.data_loss.is_none()));
    Ok(())
}

#[tokio::test]
async fn a_planned_switchover_loses_nothing_and_needs_no_clone() -> Result<()> {
    let story = group().await?;
    let before = story.cast().await?;
    let mut writer = story.client("switch").await?;
    let done = story.switchover(None).await?;
    writes_go_on(&writer, done.asked_at).await?;
    let after = story.cast().await?;
    assert_eq!(after.master, before.hot);
    let gap = writer.longest_gap(done.asked_at).context("no write after it")?;
    assert!(gap < Duration::from_secs(5), "writes stood still for {gap:?}");
    // To a spare, which is made hot replica first.
    let to = after.spares[0].clone();
    story.switchover(Some(&to)).await?;
    assert_eq!(story.cast().await?.master, to);
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}
