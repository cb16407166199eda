//! Agents that do not get to run, databases busy with a long script, a machine that slept: slowness is no death, and no
//! role changes that need not.

use anyhow::{Context, Result};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use understudy_tests::real::{LIMIT, SWING, Story, build, connect, send, start, until};

/// How long an agent is starved: three times `detect_after`.
const STARVED: Duration = Duration::from_secs(3);

/// How long a spare's agent is dead: longer than the 10 s after which a hot replica with a dead agent is dropped.
const DEAD: Duration = Duration::from_secs(13);

/// Writes may falter on a busy machine.
const FALTER: Duration = Duration::from_secs(3);

#[tokio::test]
async fn an_agent_that_does_not_run_for_a_while_is_no_reason_for_anything() -> Result<()> {
    let story = start(build()?.nodes(3).policy("flap_pause", "\"1s\"")).await?;
    let before = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let mut writer = story.client("starved").await?;
    let since = Instant::now();
    for node in [&before.spares[0], &before.hot, &before.master] {
        story.freeze_agent(node)?;
        story.nothing_changes(&before, STARVED).await.with_context(|| format!("the agent of {node} stands still"))?;
        story.thaw_agent(node)?;
        until(&format!("the agent of {node}"), async || Ok(Some(story.agent(node).await?).filter(|i| i.healthy)))
            .await?;
        assert_eq!(story.cast().await?, before, "after the agent of {node} woke");
    }
    let gap = writer.longest_gap(since).context("no writes")?;
    assert!(gap < FALTER, "writes stood still for {gap:?}");
    story.chain(&before).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_spare_whose_agent_is_dead_goes_on_copying() -> Result<()> {
    let mut story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let mut writer = story.client("spare").await?;
    let (spare, pid) = (&before.spares[0], story.database_pid(&before.spares[0])?);
    story.kill_agent(spare)?;
    story.nothing_changes(&before, DEAD).await?;
    story.chain(&before).await?;
    let status = story.status().await?;
    assert_eq!((status.active_master(), status.hot_replica()), (Some(&*before.master), Some(&*before.hot)));
    assert!(!status.member(spare).context("the spare is not listed")?.healthy);
    story.restart_agent(spare)?;
    assert_eq!(story.cast().await?, before);
    assert_eq!(story.database_pid(spare)?, pid, "its database was not restarted");
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_long_script_is_no_hang() -> Result<()> {
    // Beyond a tenth of a second the server answers BUSY, which is a sign of life.
    let builder = build()?.nodes(3).policy("hang_after", "\"1s\"").policy("flap_pause", "\"1s\"");
    let story = start(builder.setting("lua-time-limit", "100")).await?;
    let before = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let pid = story.database_pid(&before.master)?;
    let mut client = connect(story.database_addr(&before.master)?).await?;
    client.set_response_timeout(LIMIT);
    let script = "local t = redis.call('TIME'); local stop = t[1] * 1000000 + t[2] + 3000000; \
                  repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] >= stop; return 'done'";
    let begun = Instant::now();
    let done: String = redis::cmd("EVAL").arg(script).arg(0).query_async(&mut client).await?;
    assert_eq!(done, "done");
    assert!(begun.elapsed() >= Duration::from_secs(3), "it was no long script");
    assert_eq!(story.cast().await?, before, "a busy master was replaced");
    assert_eq!(story.database_pid(&before.master)?, pid, "a busy database was killed");
    let mut writer = story.client("script").await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

/// The databases, by their process ids, and all agents, stopped or woken together with Consul.
fn everything(story: &Story, sleeps: bool) -> Result<()> {
    if sleeps {
        story.freeze_consul();
    }
    for node in story.node_names() {
        if sleeps { story.stop_node(&node).map(drop)? } else { story.cont_node(&node)? }
    }
    if !sleeps {
        story.thaw_consul();
    }
    Ok(())
}

#[tokio::test]
async fn a_machine_that_slept_wakes_as_it_was() -> Result<()> {
    let story = start(build()?.nodes(3).policy("flap_pause", "\"1s\"")).await?;
    let before = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let mut writer = story.client("slept").await?;
    everything(&story, true)?;
    let asleep = Instant::now();
    until("the end of the sleep", async || Ok((asleep.elapsed() > STARVED + Duration::from_secs(1)).then_some(())))
        .await?;
    everything(&story, false)?;
    writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
    assert_eq!(story.cast().await?, before, "a sleep of everything is no takeover");
    story.chain(&before).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_database_that_hangs_is_killed_by_its_own_agent() -> Result<()> {
    let story = start(build()?.nodes(3).policy("hang_after", "\"2s\"").policy("flap_pause", "\"1s\"")).await?;
    let before = story.cast().await?;
    let mut writer = story.client("hung").await?;
    for node in [&before.spares[0], &before.hot] {
        let pid = story.database_pid(node)?;
        send(pid, Signal::STOP)?;
        until(&format!("another process at {node}"), async || {
            Ok(Some(story.database_pid(node)?).filter(|now| *now != pid))
        })
        .await?;
    }
    let after = story.cast().await?;
    assert_eq!((&after.master, after.epoch), (&before.master, before.epoch), "a copy that hangs is no takeover");
    let stopped = story.stop_database(&after.master)?;
    let status = story.taken_over(&after.master).await?;
    assert_eq!((status.active_master(), status.epoch), (Some(after.hot.as_str()), after.epoch + 1));
    writer.wait_for_acks(SWING, stopped, LIMIT).await?;
    story.cast().await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}
