//! Consul hangs, fails, vanishes, or comes back empty: nobody changes roles, writing goes on, and everything converges
//! when it is there again.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};
use understudy_tests::real::{Cast, Gate, LIMIT, SWING, Story, Way, build, info, start, until};

/// How long Consul is away under load. Longer than the 20 s after which it ends the sessions of a TTL of 10 s.
const AWAY: Duration = Duration::from_secs(30);

/// How long each of the shorter troubles lasts: long enough for every request under way to time out.
const TROUBLE: Duration = Duration::from_secs(8);

/// Writes must not even falter while Consul is away; a busy machine may.
const FALTER: Duration = Duration::from_secs(3);

/// Starts a group whose agents reach Consul by way of a gate, and then by `others`.
async fn behind_a_gate(nodes: usize, others: &[&str]) -> Result<(Story, Gate, Cast)> {
    let mut story = start(build()?.nodes(nodes)).await?;
    let consul = story.consul_address();
    let gate = Gate::open(&consul)?;
    let through = gate.address();
    let list: Vec<String> = std::iter::once(through.as_str()).chain(others.iter().copied()).map(quoted).collect();
    for node in story.node_names() {
        let whole = if others.is_empty() { quoted(&through) } else { list.join(", ") };
        story.edit(&node, &quoted(&consul), &whole)?;
        story.restart_agent(&node)?;
    }
    let cast = story.cast().await?;
    Ok((story, gate, cast))
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// Waits until every agent says whether it reaches Consul.
async fn reached(story: &Story, wanted: bool) -> Result<()> {
    for node in story.node_names() {
        until(&format!("consul_reachable: {wanted} at {node}"), async || {
            Ok((story.agent(&node).await?.consul_reachable == wanted).then_some(()))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn consul_hangs_for_half_a_minute_and_nobody_notices_who_writes() -> Result<()> {
    let story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    story.chain(&before).await?;
    let mut writer = story.client("frozen").await?;

    let since = Instant::now();
    story.freeze_consul();
    story.nothing_changes(&before, AWAY).await?;
    reached(&story, false).await?;
    let gap = writer.longest_gap(since).context("no writes")?;
    assert!(gap < FALTER, "writes stood still for {gap:?}");
    for node in story.node_names() {
        let log = story.log(&node)?;
        assert!(log.contains("no Consul answered"), "{node} does not say so\n{log}");
    }

    story.thaw_consul();
    reached(&story, true).await?;
    story.nothing_changes(&before, TROUBLE).await?;
    assert_eq!(story.cast().await?, before, "no failover while Consul was away, and none after");
    story.chain(&before).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    // The group is as able as before: the master's death is noticed.
    story.kill_database(&before.master)?;
    story.taken_over(&before.master).await?;
    Ok(())
}

#[tokio::test]
async fn consul_fails_is_silent_and_refuses_and_nothing_changes() -> Result<()> {
    let (story, gate, before) = behind_a_gate(3, &[]).await?;
    let mut writer = story.client("gate").await?;
    for way in [Way::Failing, Way::Silent, Way::Shut] {
        let since = Instant::now();
        gate.set(way);
        story.nothing_changes(&before, TROUBLE).await?;
        reached(&story, false).await?;
        let gap = writer.longest_gap(since).context("no writes")?;
        assert!(gap < FALTER, "{way:?}: writes stood still for {gap:?}");
        gate.set(Way::Open);
        reached(&story, true).await?;
        assert_eq!(story.cast().await?, before, "{way:?}");
    }
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_master_that_dies_while_consul_is_away_is_replaced_when_it_is_back() -> Result<()> {
    let story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let mut writer = story.client("both").await?;
    story.freeze_consul();
    reached(&story, false).await?;
    let died = story.kill_database(&before.master)?;
    let hot = story.database_addr(&before.hot)?;
    // The master's agent starts its database again; nobody may make it, or its copy, a master.
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        for node in story.node_names() {
            let Ok(info) = info(story.database_addr(&node)?, "replication").await else { continue };
            assert_eq!(info.get("role").map(String::as_str), Some("slave"), "{node} became master without Consul");
        }
    }
    let acked = writer.acked();
    story.thaw_consul();
    let status = story.taken_over(&before.master).await?;
    assert_eq!((status.active_master(), status.epoch), (Some(before.hot.as_str()), before.epoch + 1));
    assert_eq!(info(hot, "replication").await?.get("role").map(String::as_str), Some("master"));
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    assert!(writer.acked() > acked);
    let after = story.cast().await?;
    story.chain(&after).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn of_several_addresses_the_living_one_serves() -> Result<()> {
    // The first never lived, the gate dies later, the last is Consul itself.
    let nobody = format!("http://127.0.0.1:{}", cli::rig::free_port()?);
    let mut story = start(build()?.nodes(3)).await?;
    let consul = story.consul_address();
    let gate = Gate::open(&consul)?;
    let all = [nobody.as_str(), &gate.address(), &consul].map(quoted).join(", ");
    for node in story.node_names() {
        story.edit(&node, &quoted(&consul), &all)?;
        story.restart_agent(&node)?;
    }
    let before = story.cast().await?;
    let mut writer = story.client("several").await?;
    gate.set(Way::Shut);
    let died = story.kill_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    story.cast().await?;
    gate.set(Way::Silent);
    assert_eq!(story.cast().await?.epoch, before.epoch + 1, "nothing more has happened");
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn consul_comes_back_empty_and_the_group_is_not_begun_anew() -> Result<()> {
    let mut story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let mut writer = story.client("empty").await?;
    story.restart_consul().await?;
    for node in story.node_names() {
        until(&format!("quarantine at {node}"), async || {
            let said = story.agent(&node).await?;
            anyhow::ensure!(said.reason.contains("quarantine"), "{}", said.reason);
            Ok(Some(()))
        })
        .await?;
    }
    let since = Instant::now();
    story.nothing_changes(&before, TROUBLE).await?;
    writer.wait_for_acks(SWING, since, LIMIT).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}
