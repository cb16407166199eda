//! Agents stop, crash and start again beside running databases: no process is touched and no role changes.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};
use understudy_tests::real::{Cast, LIMIT, SWING, Story, build, start, until};

/// Leaving takes milliseconds: a task each to stop, and a session to end.
const LEAVE_WITHIN: Duration = Duration::from_secs(20);

/// The processes of the databases, by node.
fn pids(story: &Story) -> Result<Vec<u32>> {
    story.node_names().iter().map(|node| Ok(story.database_pid(node)?)).collect()
}

/// Waits until the agent of `node` is heard again and looks at what it has taken over.
async fn unchanged(story: &Story, node: &str, before: &Cast, pids_before: &[u32]) -> Result<()> {
    until(&format!("the agent of {node}"), async || Ok(Some(story.agent(node).await?).filter(|i| i.healthy))).await?;
    assert_eq!(&story.cast().await?, before, "after the agent of {node} came back");
    assert_eq!(pids(story)?, pids_before, "no database was restarted");
    Ok(())
}

#[tokio::test]
async fn an_upgrade_of_every_agent_in_turn_is_no_failover() -> Result<()> {
    let mut story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let pids_before = pids(&story)?;
    let mut writer = story.client("upgrade").await?;
    let since = Instant::now();
    for node in [&before.spares[0], &before.hot, &before.master] {
        let how = story.leave_agent(node, LEAVE_WITHIN).await?;
        let how = how.with_context(|| format!("the agent of {node} did not leave"))?;
        assert!(how.success(), "{node}: {how}");
        assert!(story.log(node)?.contains("its databases go on"), "{node} says so");
        story.restart_agent(node)?;
        unchanged(&story, node, &before, &pids_before).await?;
    }
    let gap = writer.longest_gap(since).context("no writes")?;
    assert!(gap < Duration::from_secs(3), "writes stood still for {gap:?}");
    story.chain(&before).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_agent_that_crashes_and_starts_again_is_no_failover() -> Result<()> {
    let mut story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let pids_before = pids(&story)?;
    let mut writer = story.client("crash").await?;
    for node in [&before.master, &before.hot] {
        let killed = story.kill_agent(node)?;
        writer.wait_for_acks(SWING, killed, LIMIT).await?;
        story.restart_agent(node)?;
        unchanged(&story, node, &before, &pids_before).await?;
    }
    story.chain(&before).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn agents_that_start_while_consul_is_away_change_nothing() -> Result<()> {
    let mut story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let pids_before = pids(&story)?;
    let mut writer = story.client("away").await?;
    story.freeze_consul();
    for node in [&before.master, &before.hot, &before.spares[0]] {
        story.restart_agent(node)?;
        until(&format!("the agent of {node}"), async || {
            let said = story.agent(node).await?;
            anyhow::ensure!(!said.consul_reachable, "Consul cannot have been reached");
            Ok(said.database.status().map(drop))
        })
        .await?;
    }
    let since = Instant::now();
    story.nothing_changes(&before, Duration::from_secs(3)).await?;
    writer.wait_for_acks(SWING, since, LIMIT).await?;
    story.thaw_consul();
    for node in story.node_names() {
        unchanged(&story, &node, &before, &pids_before).await?;
    }
    story.chain(&before).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_master_whose_agent_is_dead_goes_on_until_it_dies_as_well() -> Result<()> {
    let mut story = start(build()?.nodes(3).policy("flap_pause", "\"1s\"")).await?;
    let before = story.cast().await?;
    let mut writer = story.client("orphan").await?;
    let since = story.kill_agent(&before.master)?;
    // Consul ends the agent's session 20 s after its last renewal, and frees the leader key.
    until("a free leader key", async || {
        story.nothing_changes(&before, Duration::from_secs(1)).await?;
        let view = story.store()?.group(story.group()).await?.view;
        anyhow::ensure!(view.leader.is_none(), "still held");
        Ok(Some(()))
    })
    .await?;
    story.nothing_changes(&before, Duration::from_secs(3)).await?;
    let gap = writer.longest_gap(since).context("no writes")?;
    assert!(gap < Duration::from_secs(3), "writes stood still for {gap:?}");
    assert_eq!(story.status().await?.epoch, before.epoch);

    let died = story.kill_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    story.restart_agent(&before.master)?;
    let after = story.cast().await?;
    assert_eq!(after.spares.iter().collect::<Vec<_>>(), [&before.master]);
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_hot_replica_whose_agent_stays_dead_makes_room_for_a_spare() -> Result<()> {
    let mut story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let mut writer = story.client("deaf").await?;
    let killed = story.kill_agent(&before.hot)?;
    let spare = before.spares[0].as_str();
    let status = story.wait_until("the spare as hot replica", LIMIT, |s| s.hot_replica() == Some(spare)).await?;
    assert!(killed.elapsed() > Duration::from_secs(8), "an upgrade of an agent takes that long");
    assert_eq!((status.active_master(), status.epoch), (Some(before.master.as_str()), before.epoch));
    story.restart_agent(&before.hot)?;
    let after = story.cast().await?;
    assert_eq!(after.spares.iter().collect::<Vec<_>>(), [&before.hot]);
    story.chain(&after).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}
