//! Somebody's hand, or a restored backup, changes the record in Consul: serving goes on, no role changes, every agent
//! says what is wrong; when the right record stands there again, everything goes on.

use anyhow::{Context, Result};
use std::process::Command;
use std::time::{Duration, Instant};
use understudy_tests::real::{Cast, LIMIT, SWING, Story, build, said, start, until};

/// How long each wrong record stands: several times what a takeover, or a new group, would need.
const WRONG: Duration = Duration::from_secs(3);

/// Every agent says so.
async fn all_say(story: &Story, code: &str, words: &str) -> Result<()> {
    for node in story.node_names() {
        let reason = story.says(&node, code).await?;
        assert!(reason.contains(words), "{node}: {reason}");
    }
    let status = story.understudy(&["status", story.group()])?;
    assert_ne!(status.code, -1, "{status:?}");
    Ok(())
}

/// The group is as able as before: its master's death is noticed. Gives who plays what afterwards.
async fn is_able(story: &Story, before: &Cast) -> Result<Cast> {
    assert_eq!(&story.cast().await?, before, "nothing changed meanwhile");
    story.kill_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!((status.active_master(), status.epoch), (Some(before.hot.as_str()), before.epoch + 1));
    story.cast().await
}

#[tokio::test]
async fn a_wrong_record_changes_nothing_and_the_right_one_is_taken_again() -> Result<()> {
    let story = start(build()?.nodes(3)).await?;
    let mut writer = story.client("hand").await?;
    let older = story.document("record").await?.context("no record")?;
    let first = story.cast().await?;
    story.switchover(None).await?;
    let before = story.cast().await?;
    assert_eq!(before.epoch, first.epoch + 1);
    let right = story.document("record").await?.context("no record")?;

    let mut newer: serde_json::Value = serde_json::from_slice(&right)?;
    newer["v"] = 99.into();
    let wrongs: [(&str, Option<Vec<u8>>, &str, &str); 5] = [
        ("rolled back", Some(older), "record_went_back", "older than the one this node remembers"),
        ("deleted", None, "record_went_back", "or gone"),
        ("half-written", Some(right[..right.len() / 2].to_vec()), "record_unreadable", "cannot be read"),
        ("no record at all", Some(b"{}".to_vec()), "record_unreadable", "cannot be read"),
        ("of a newer version", Some(serde_json::to_vec(&newer)?), "record_unreadable", "form 99"),
    ];
    for (what, wrong, code, words) in wrongs {
        let since = Instant::now();
        story.by_hand("record", wrong.as_deref()).await?;
        all_say(&story, code, words).await.with_context(|| what.to_owned())?;
        story.nothing_changes(&before, WRONG).await.with_context(|| what.to_owned())?;
        writer.wait_for_acks(SWING, since, LIMIT).await?;
        let stands = story.document("record").await?;
        assert_eq!(stands, wrong, "{what}: an agent wrote over what it does not trust");
        story.by_hand("record", Some(&right)).await?;
        assert_eq!(story.cast().await?, before, "{what}: the right record is taken again");
    }
    is_able(&story, &before).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

/// Runs `consul snapshot` for the rig's server.
fn snapshot(story: &Story, verb: &str) -> Result<()> {
    let file = story.folder().join("consul.snapshot");
    let consul = cli::rig::program("consul").context("no consul")?;
    let address = format!("-http-addr={}", story.consul_address());
    let told = said(Command::new(consul).args(["snapshot", verb, &address]).arg(&file))?;
    anyhow::ensure!(told.code == 0, "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_restored_snapshot_of_consul_is_not_believed() -> Result<()> {
    let story = start(build()?.nodes(3)).await?;
    let mut writer = story.client("snapshot").await?;
    let first = story.cast().await?;
    snapshot(&story, "save")?;
    story.kill_database(&first.master)?;
    story.taken_over(&first.master).await?;
    let before = story.cast().await?;
    let right = story.document("record").await?.context("no record")?;

    snapshot(&story, "restore")?;
    let since = Instant::now();
    all_say(&story, "record_went_back", "quarantine").await?;
    story.nothing_changes(&before, WRONG).await?;
    writer.wait_for_acks(SWING, since, LIMIT).await?;
    // Not even the death of the master may make anybody act on a record that is not trusted.
    story.kill_database(&before.master)?;
    until("the master's database again", async || Ok(story.agent(&before.master).await?.database.status().map(drop)))
        .await?;
    story.nobody_is_master(WRONG).await?;

    story.by_hand("record", Some(&right)).await?;
    let status = story.taken_over(&before.master).await?;
    assert_eq!((status.active_master(), status.epoch), (Some(before.hot.as_str()), before.epoch + 1));
    story.cast().await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}
