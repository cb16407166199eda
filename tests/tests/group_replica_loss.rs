//! Copies die and come back: who writes notices little or nothing, and no role changes that need not.

use anyhow::{Context, Result};
use std::time::Instant;
use understudy_tests::real::{LIMIT, SWING, Story, build, connect, start, until};

/// Waits until the master's settings that decide about acknowledgements are these: `min-replicas-to-write` and
/// `appendfsync`.
async fn settings(story: &Story, master: &str, guard: &str, fsync: &str) -> Result<()> {
    until(&format!("min-replicas-to-write {guard} and appendfsync {fsync}"), async || {
        let found =
            (story.setting(master, "min-replicas-to-write").await?, story.setting(master, "appendfsync").await?);
        anyhow::ensure!((found.0.as_str(), found.1.as_str()) == (guard, fsync), "{found:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn the_hot_replica_dies_then_the_spare_and_both_come_back() -> Result<()> {
    let story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let mut writer = story.client("copies").await?;

    let died = story.kill_database(&before.hot)?;
    let what = "the spare certified in its place";
    story.wait_until(what, LIMIT, |s| s.hot_replica() == Some(before.spares[0].as_str())).await?;
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    let after = story.cast().await?;
    assert_eq!((&after.master, after.epoch), (&before.master, before.epoch), "no takeover");
    assert_eq!(after.spares.iter().collect::<Vec<_>>(), [&before.hot], "the one that died follows as a spare");
    story.chain(&after).await?;
    settings(&story, &after.master, "1", "everysec").await?;

    let spare = &after.spares[0];
    let (pid, died) = (story.database_pid(spare)?, story.kill_database(spare)?);
    until("another process of the spare", async || Ok(Some(story.database_pid(spare)?).filter(|now| *now != pid)))
        .await?;
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    assert_eq!(story.cast().await?, after, "the loss of a spare changes nothing");
    story.chain(&after).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn with_continue_the_master_goes_on_alone_with_every_write_on_disk() -> Result<()> {
    let mut story = start(build()?.nodes(2).policy("without_replica", "\"continue\"")).await?;
    let before = story.cast().await?;
    settings(&story, &before.master, "1", "everysec").await?;
    let mut writer = story.client("alone").await?;

    let died = story.kill_node(&before.hot)?;
    story.wait_until("a record without a hot replica", LIMIT, |s| s.replica.is_none()).await?;
    settings(&story, &before.master, "0", "always").await?;
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    until("a master that says so", async || {
        Ok(Some(story.agent(&before.master).await?.reason_code).filter(|code| code == "serving_alone"))
    })
    .await?;

    story.restart_agent(&before.hot)?;
    let after = story.cast().await?;
    assert_eq!(after, before, "the same master, the same hot replica, the same epoch");
    settings(&story, &after.master, "1", "everysec").await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn with_block_writes_wait_until_another_copy_is_certified() -> Result<()> {
    let mut story = start(build()?.nodes(2).policy("without_replica", "\"block\"")).await?;
    let before = story.cast().await?;
    let mut writer = story.client("block").await?;

    story.kill_node(&before.hot)?;
    story.wait_until("a record without a hot replica", LIMIT, |s| s.replica.is_none()).await?;
    let master = story.database_addr(&before.master)?;
    let mut client = connect(master).await?;
    let refusal: redis::RedisResult<()> = redis::cmd("SET").arg("k").arg("v").query_async(&mut client).await;
    let refusal = refusal.err().context("a write was acknowledged by the master alone")?;
    assert_eq!(refusal.code(), Some("NOREPLICAS"), "{refusal}");
    let (acked, refused_since) = (writer.acked(), Instant::now());
    until("the client's refusal", async || Ok(writer.last_error().filter(|e| e.contains("NOREPLICAS")))).await?;
    until("a master that says why", async || {
        Ok(Some(story.agent(&before.master).await?.reason_code).filter(|code| code == "blocked_alone"))
    })
    .await?;
    settings(&story, &before.master, "1", "always").await?;
    assert_eq!(writer.acked(), acked, "nothing was acknowledged meanwhile");

    story.restart_agent(&before.hot)?;
    writer.wait_for_acks(SWING, refused_since, LIMIT).await?;
    let after = story.cast().await?;
    assert_eq!(after, before);
    settings(&story, &after.master, "1", "everysec").await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn of_two_nodes_the_copy_takes_over_and_the_former_master_becomes_its_copy() -> Result<()> {
    let story = start(build()?.nodes(2)).await?;
    let before = story.cast().await?;
    let mut writer = story.client("pair").await?;
    let died = story.kill_database(&before.master)?;
    story.taken_over(&before.master).await?;
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    let after = story.cast().await?;
    assert_eq!((&after.master, &after.hot), (&before.hot, &before.master), "they have changed places");
    assert_eq!(after.epoch, before.epoch + 1);
    story.chain(&after).await?;
    settings(&story, &after.master, "1", "everysec").await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

/// The database after the last that clients have by default: the agent's own.
const OURS: i64 = 16;

/// Whether an acknowledgement of the master needs the hot replica, read as a proxy reads it; `None`: nothing is said, so
/// it does.
async fn need(story: &Story, master: &str) -> Result<Option<String>> {
    let mut client = connect(story.database_addr(master)?).await?;
    let _: () = redis::cmd("SELECT").arg(OURS).query_async(&mut client).await?;
    Ok(redis::cmd("GET").arg("understudy:need").query_async(&mut client).await?)
}

async fn needs(story: &Story, master: &str, expected: &str) -> Result<()> {
    until(&format!("need {expected} at {master}"), async || {
        let said = need(story, master).await?;
        anyhow::ensure!(said.as_deref() == Some(expected), "{said:?}");
        Ok(Some(()))
    })
    .await
}

async fn flush(story: &Story, master: &str) -> Result<()> {
    let mut client = connect(story.database_addr(master)?).await?;
    Ok(redis::cmd("FLUSHALL").query_async(&mut client).await?)
}

async fn carries_a_marker(story: &Story, master: &str) -> Result<()> {
    until(&format!("a marker at {master}"), async || {
        Ok(story.agent(master).await?.database.status().and_then(|st| st.marker.clone()).map(drop))
    })
    .await
}

#[tokio::test]
async fn what_a_proxy_waits_for_follows_the_record_whatever_clients_flush() -> Result<()> {
    let mut story = start(build()?.nodes(2)).await?;
    let before = story.cast().await?;
    needs(&story, &before.master, "1").await?;
    // Nothing said is "needed": with a hot replica nobody has to put anything right but the marker.
    flush(&story, &before.master).await?;
    carries_a_marker(&story, &before.master).await?;
    assert_ne!(need(&story, &before.master).await?.as_deref(), Some("0"));

    story.kill_node(&before.hot)?;
    story.wait_until("a record without a hot replica", LIMIT, |s| s.replica.is_none()).await?;
    needs(&story, &before.master, "0").await?;
    assert_eq!(story.setting(&before.master, "appendfsync").await?, "always", "its own disk is all there is");
    // Alone, writes would wait for ever until it is said again.
    flush(&story, &before.master).await?;
    needs(&story, &before.master, "0").await?;
    carries_a_marker(&story, &before.master).await?;

    story.restart_agent(&before.hot)?;
    story.cast().await?;
    needs(&story, &before.master, "1").await?;
    story.kill_node(&before.master)?;
    story.taken_over(&before.master).await?;
    needs(&story, &before.hot, "0").await?;
    story.restart_agent(&before.master)?;
    let after = story.cast().await?;
    assert_eq!(after.master, before.hot);
    needs(&story, &after.master, "1").await
}
