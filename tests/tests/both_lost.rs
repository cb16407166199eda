//! Master and hot replica are both lost: what comes back goes on only when nothing that was acknowledged can be missing,
//! and says so; until then nobody is master.

use anyhow::{Context, Result};
use cli::rig::{Writer, http};
use election::{Phase, Record};
use std::time::{Duration, Instant};
use understudy_tests::real::{Cast, LIMIT, SWING, Story, build, copy, start, until};

/// How long a halted group is looked at: several times what a takeover needs.
const HALTED: Duration = Duration::from_secs(3);

/// How often a takeover may be over before this test has seen it begin.
const ATTEMPTS: u32 = 8;

async fn three() -> Result<(Story, Cast)> {
    let story = start(build()?.nodes(3).policy("flap_pause", "\"1s\"")).await?;
    let cast = story.cast().await?;
    Ok((story, cast))
}

/// The group serves again, in a later epoch and under one of the two that may have all writes, and has every one.
async fn serves_again(story: &Story, before: &Cast, writer: &mut Writer) -> Result<Cast> {
    let after = story.cast().await?;
    assert!(after.epoch > before.epoch, "{after:?} after {before:?}");
    assert!([&before.master, &before.hot].contains(&&after.master), "{} may lack writes: {after:?}", after.master);
    story.chain(&after).await?;
    assert_eq!(story.lost(writer).await?, 0);
    Ok(after)
}

/// The last story says why it went on, and what that may have cost.
async fn history_says_so(story: &Story, epoch: u64) -> Result<()> {
    let last = story.history().await?.pop().context("no history")?;
    assert_eq!(last.epoch, epoch);
    assert!(last.reason.contains("both restarted"), "{}", last.reason);
    let loss = last.data_loss.context("nothing is said of what the disks may lack")?;
    assert!(loss.contains("may be lost") && loss.contains("appendfsync everysec"), "{loss}");
    Ok(())
}

#[tokio::test]
async fn after_a_power_cut_of_everything_nobody_goes_on_until_both_are_back() -> Result<()> {
    let (mut story, first) = three().await?;
    let mut before = first;
    for round in ["spare first", "master first"] {
        let mut writer = story.client(&round.replace(' ', "-")).await?;
        let order = if round == "spare first" {
            [before.spares[0].clone(), before.hot.clone(), before.master.clone()]
        } else {
            [before.master.clone(), before.spares[0].clone(), before.hot.clone()]
        };
        story.power_cut(&[&before.master, &before.hot, &before.spares[0]])?;
        let acked = writer.acked();
        for node in &order[..2] {
            story.restart_agent(node)?;
            until(&format!("a database at {node}"), async || Ok(story.agent(node).await?.database.status().map(drop)))
                .await?;
            story.nobody_is_master(HALTED).await?;
        }
        let (waits, for_whom) =
            if round == "spare first" { (&before.hot, &before.master) } else { (&before.master, &before.hot) };
        let reason = story.says(waits, "waiting_for_other").await?;
        assert!(reason.contains(for_whom.as_str()) && reason.contains("halted"), "{reason}");
        let status = story.status().await?;
        assert!(status.members.iter().all(|m| !m.healthy || before.spares.contains(&m.id.to_string())), "{status:?}");
        let shown = status.member(waits).context("not listed")?;
        assert!(shown.reason.contains("halted"), "{}", shown.reason);
        assert_eq!(writer.acked(), acked, "{round}: something was acknowledged by a halted group");

        story.restart_agent(&order[2])?;
        let after = serves_again(&story, &before, &mut writer).await?;
        history_says_so(&story, after.epoch).await?;
        before = after;
    }
    Ok(())
}

#[tokio::test]
async fn a_restarted_copy_waits_for_the_master_that_may_have_more() -> Result<()> {
    let (mut story, before) = three().await?;
    let mut writer = story.client("copy").await?;
    // The hot replica's agent lives all the time.
    story.stop_node(&before.master)?;
    story.kill_database(&before.hot)?;
    story.kill_node(&before.master)?;
    let reason = story.says(&before.hot, "waiting_for_other").await?;
    assert!(reason.contains(&before.master), "{reason}");
    story.nobody_is_master(HALTED).await?;
    story.restart_agent(&before.master)?;
    let after = serves_again(&story, &before, &mut writer).await?;
    history_says_so(&story, after.epoch).await
}

#[tokio::test]
async fn an_empty_data_set_does_not_go_on_and_neither_does_a_spare() -> Result<()> {
    let (mut story, before) = three().await?;
    let mut writer = story.client("hollow").await?;
    story.power_cut(&[&before.master, &before.hot, &before.spares[0]])?;
    story.empty(&before.master)?;
    // The spare has everything, and nobody can know that.
    for node in [&before.master, &before.spares[0]] {
        story.restart_agent(node)?;
    }
    until("an answer of both", async || {
        for node in [&before.master, &before.spares[0]] {
            anyhow::ensure!(story.agent(node).await?.database.status().is_some(), "{node} has no database");
        }
        Ok(Some(()))
    })
    .await?;
    story.nobody_is_master(HALTED).await?;
    story.restart_agent(&before.hot)?;
    let after = serves_again(&story, &before, &mut writer).await?;
    assert_eq!(after.master, before.hot, "an empty data set became master");
    Ok(())
}

#[tokio::test]
async fn when_both_data_sets_are_gone_nobody_goes_on() -> Result<()> {
    let (mut story, before) = three().await?;
    let writer = story.client("void").await?;
    story.power_cut(&[&before.master, &before.hot, &before.spares[0]])?;
    let acked = writer.acked();
    for node in [&before.master, &before.hot] {
        story.empty(node)?;
    }
    for node in story.node_names() {
        story.restart_agent(&node)?;
    }
    for node in [&before.master, &before.hot] {
        let reason = story.says(node, "may_not_resume").await?;
        assert!(reason.contains("no marker"), "{reason}");
    }
    story.nobody_is_master(HALTED).await?;
    assert_eq!(writer.acked(), acked);
    Ok(())
}

/// The record as it stands in Consul.
async fn record(story: &Story) -> Result<Record> {
    Ok(serde_json::from_slice(&story.document("record").await?.context("no record")?)?)
}

/// Waits until the record promises that both disks hold every write, or that they need not, and each of `nodes` writes
/// by that.
async fn disks(story: &Story, nodes: [&String; 2], promise: bool) -> Result<()> {
    until(&format!("fsync {promise} everywhere"), async || {
        let record = record(story).await?;
        let proven = record.replica.as_ref().is_some_and(|r| r.certificate.fsync);
        anyhow::ensure!((record.fsync, proven) == (promise, promise), "{record:?}");
        for node in nodes {
            let setting = story.setting(node, "appendfsync").await?;
            anyhow::ensure!((setting == "always") == promise, "{node}: {setting}");
        }
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn with_fsync_the_hot_replica_goes_on_alone_when_the_master_never_returns() -> Result<()> {
    let (mut story, before) = three().await?;
    let mut writer = story.client("disks").await?;
    let set = |word: &str| story.understudy(&["config", "demo", "set", word]);
    assert_eq!(set("fsync=true")?.code, 0);
    disks(&story, [&before.master, &before.hot], true).await?;

    writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
    story.power_cut(&[&before.master, &before.hot, &before.spares[0]])?;
    story.empty(&before.master)?;
    story.restart_agent(&before.hot)?;
    let alone = story.taken_over(&before.master).await?;
    assert_eq!((alone.active_master(), alone.epoch), (Some(before.hot.as_str()), before.epoch + 1));
    let last = story.history().await?.pop().context("no history")?;
    assert!(last.reason.contains("disk holds every acknowledged write"), "{}", last.reason);
    assert_eq!(last.data_loss, None);

    story.restart_agent(&before.spares[0])?;
    let pair = [&before.hot, &before.spares[0]];
    disks(&story, pair, true).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    assert_eq!(story.understudy(&["config", "demo", "set", "fsync=false"])?.code, 0);
    disks(&story, pair, false).await
}

/// What the agent of `node` knows of the marker on its disk.
fn marker(story: &Story, node: &str) -> Result<Option<u64>> {
    let file = story.memory(node).join(format!("{}.memory.json", story.group()));
    let memory: election::Memory = serde_json::from_slice(&std::fs::read(file)?)?;
    Ok(memory.marker.map(|(_, counter)| counter))
}

#[tokio::test]
async fn an_older_data_set_never_wins() -> Result<()> {
    let (mut story, before) = three().await?;
    let mut writer = story.client("older").await?;
    let backup = story.folder().join("backup");
    copy(&story.data(&before.master), &backup)?;
    let then = until("a marker", async || marker(&story, &before.master)).await?;
    until("a newer marker", async || Ok(marker(&story, &before.master)?.filter(|now| *now > then))).await?;
    writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
    story.power_cut(&[&before.master, &before.hot, &before.spares[0]])?;
    story.empty(&before.master)?;
    copy(&backup, &story.data(&before.master))?;
    for node in story.node_names() {
        story.restart_agent(&node)?;
    }
    let after = serves_again(&story, &before, &mut writer).await?;
    assert_eq!(after.master, before.hot, "an older data set became master");
    Ok(())
}

/// Waits, in Consul's own time, until the record is in `promoting`, and stops the new master in its tracks there;
/// whether it was still `promoting` afterwards.
async fn caught(story: &Story, new: &str, epoch: u64) -> Result<bool> {
    let (consul, group) = (story.consul_address(), story.group());
    let mut index = 0;
    until("the takeover", async || {
        let url = format!("{consul}/v1/kv/understudy/{group}/record?raw&index={index}&wait=10s");
        let answer = http().get(url).send().await?.error_for_status()?;
        let header = answer.headers().get("x-consul-index").context("no index")?;
        index = header.to_str()?.parse::<u64>()?;
        let record: Record = serde_json::from_slice(&answer.bytes().await?)?;
        Ok((record.epoch == epoch).then_some(()))
    })
    .await?;
    story.stop_node(new)?;
    let text = story.document("record").await?.context("no record")?;
    let record: Record = serde_json::from_slice(&text)?;
    Ok(record.epoch == epoch && record.phase == Phase::Promoting)
}

/// Puts `fault` upon the master until its successor is caught in `promoting`; gives the cast before that.
async fn until_caught(
    story: &Story,
    fault: impl Fn(&Cast) -> Result<()>,
    undo: impl Fn(&Cast) -> Result<()>,
) -> Result<Cast> {
    for _ in 0..ATTEMPTS {
        let before = story.cast().await?;
        story.wait_calm(LIMIT).await?;
        fault(&before)?;
        if caught(story, &before.hot, before.epoch + 1).await? {
            return Ok(before);
        }
        // Too late: it was open already.
        story.cont_node(&before.hot)?;
        undo(&before)?;
    }
    anyhow::bail!("{ATTEMPTS} takeovers were over before they could be interrupted")
}

#[tokio::test]
async fn a_master_that_never_stopped_takes_the_group_back_from_one_that_died_promoting() -> Result<()> {
    let (mut story, _) = three().await?;
    let mut writer = story.client("back").await?;
    let before = until_caught(
        &story,
        |cast| story.stop_node(&cast.master).map(drop).map_err(Into::into),
        |cast| Ok(story.cont_node(&cast.master)?),
    )
    .await?;
    story.kill_node(&before.hot)?;
    story.cont_node(&before.master)?;
    let status = story.wait_until("the group taken back", LIMIT, |s| s.active_master().is_some()).await?;
    assert_eq!((status.active_master(), status.epoch), (Some(before.master.as_str()), before.epoch + 2));
    writer.wait_for_acks(SWING, Instant::now(), LIMIT).await?;
    let last = story.history().await?.pop().context("no history")?;
    assert!(last.reason.contains("took the group back"), "{}", last.reason);
    assert_eq!(last.data_loss, None);
    story.restart_agent(&before.hot)?;
    story.cast().await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_restarted_master_waits_for_the_one_that_died_promoting() -> Result<()> {
    let (mut story, _) = three().await?;
    let mut writer = story.client("promoting").await?;
    let before =
        until_caught(&story, |cast| story.kill_database(&cast.master).map(drop).map_err(Into::into), |_| Ok(()))
            .await?;
    story.kill_node(&before.hot)?;
    let reason = story.says(&before.master, "waiting_for_other").await?;
    assert!(reason.contains(&before.hot), "{reason}");
    story.nobody_is_master(HALTED).await?;
    story.restart_agent(&before.hot)?;
    serves_again(&story, &before, &mut writer).await?;
    Ok(())
}
