//! Groups with `durability = "async"`: a known death is taken over at once, a suspected one only when the former master
//! can certainly not acknowledge any more, and the story says what that may have cost.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};
use understudy_tests::real::{LIMIT, SWING, Story, build, connect_as, start, until};

/// The master's guard closes when no acknowledgement is younger than two seconds, looked at once a second, in whole
/// seconds.
const GUARD_CLOSES: Duration = Duration::from_secs(4);

/// The index after the user's databases, of which there are 16 when not said otherwise.
const MARKERS: u32 = 16;

async fn group() -> Result<Story> {
    start(build()?.nodes(3).policy("durability", "\"async\"").policy("flap_pause", "\"1s\"")).await
}

/// What a node's own database says of whether an acknowledgement needs the hot replica.
async fn need(story: &Story, node: &str) -> Result<String> {
    let file = story.memory(node).join(format!("{}.secret", story.group()));
    let password = std::fs::read_to_string(file)?;
    let mut agent = connect_as(story.database_addr(node)?, "understudy", password.trim()).await?;
    redis::cmd("SELECT").arg(MARKERS).query_async::<()>(&mut agent).await?;
    Ok(redis::cmd("GET").arg("understudy:need").query_async(&mut agent).await?)
}

async fn needs_nobody(story: &Story, node: &str) -> Result<()> {
    until(&format!("need = 0 and a guard at {node}"), async || {
        let found = (need(story, node).await?, story.setting(node, "min-replicas-to-write").await?);
        anyhow::ensure!((found.0.as_str(), found.1.as_str()) == ("0", "1"), "{found:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn a_dead_process_is_replaced_at_once() -> Result<()> {
    let story = group().await?;
    let before = story.cast().await?;
    needs_nobody(&story, &before.master).await?;
    let mut writer = story.client("dead").await?;
    let died = story.kill_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!((status.active_master(), status.epoch), (Some(before.hot.as_str()), before.epoch + 1));
    assert!(died.elapsed() < GUARD_CLOSES, "a known death waits for no guard: {:?}", died.elapsed());
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    writer.stop();
    let after = story.cast().await?;
    needs_nobody(&story, &after.master).await?;
    let last = story.history().await?.pop().context("no history")?;
    let loss = last.data_loss.context("nothing is said of what the former master acknowledged alone")?;
    assert!(loss.contains("async group") && loss.contains("bytes"), "{loss}");
    Ok(())
}

#[tokio::test]
async fn a_silent_node_is_replaced_when_its_guard_has_closed() -> Result<()> {
    let story = group().await?;
    let before = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let writer = story.client("silent").await?;
    let stopped = story.stop_node(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    let took = stopped.elapsed();
    assert_eq!((status.active_master(), status.epoch), (Some(before.hot.as_str()), before.epoch + 1));
    assert!(took >= GUARD_CLOSES, "the former master might still have acknowledged: {took:?}");
    writer.wait_for_acks(SWING, stopped, LIMIT).await?;
    let last = story.history().await?.pop().context("no history")?;
    assert!(last.data_loss.is_some_and(|loss| loss.contains("async group")), "{}", last.reason);
    story.cont_node(&before.master)?;
    let after = story.cast().await?;
    assert_eq!(after.master, before.hot);
    assert!(after.spares.contains(&before.master), "{after:?}");
    story.chain(&after).await?;
    writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
    Ok(())
}

#[tokio::test]
async fn a_planned_switchover_loses_nothing() -> Result<()> {
    let story = group().await?;
    let before = story.cast().await?;
    let mut writer = story.client("planned").await?;
    story.switchover(None).await?;
    let after = story.cast().await?;
    assert_eq!((&after.master, after.epoch), (&before.hot, before.epoch + 1));
    assert_eq!(story.history().await?.pop().context("no history")?.data_loss, None);
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}
