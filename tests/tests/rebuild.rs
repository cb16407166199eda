//! A machine is set up anew under its old name: what it had is gone, and it becomes a spare with a copy of everything.

use anyhow::{Context, Result};
use std::time::Duration;
use understudy_tests::real::{LIMIT, SWING, Story, build, connect, info_number, start, until};

/// Consul ends a session of 10 s at the latest 20 s after its last renewal, and the agent writes its record within its
/// next try; a busy machine, later.
const REGISTERED_WITHIN: Duration = Duration::from_secs(45);

/// The keys of the users' first database.
async fn keys(story: &Story, node: &str) -> Result<u64> {
    let mut client = connect(story.database_addr(node)?).await?;
    Ok(redis::cmd("DBSIZE").query_async(&mut client).await?)
}

/// Throws away everything a node has on its disk.
fn wipe(story: &Story, node: &str) -> Result<()> {
    for folder in [story.data(node), story.memory(node)] {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

#[tokio::test]
async fn a_rebuilt_master_becomes_a_spare_with_a_copy_of_everything() -> Result<()> {
    let mut story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let mut writer = story.client("rebuilt").await?;
    let died = story.kill_node(&before.master)?;
    story.taken_over(&before.master).await?;
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    wipe(&story, &before.master)?;
    let copies = copies_given(&story).await?;
    story.restart_agent(&before.master)?;

    let after = story.cast().await?;
    assert_eq!(after.spares.iter().collect::<Vec<_>>(), [&before.master]);
    assert_eq!((&after.master, after.epoch), (&before.hot, before.epoch + 1), "its coming is no takeover");
    story.chain(&after).await?;
    assert!(copies_given(&story).await? > copies, "it has a whole copy from the hot replica");
    until("the group's identity in its record", async || {
        let group = story.store()?.group(story.group()).await?;
        let member = group.view.members.values().find(|m| m.id.as_str() == before.master);
        Ok(member.is_some_and(|m| m.uid.is_some()).then_some(()))
    })
    .await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    until("as many keys in the spare as in the master", async || {
        Ok((keys(&story, &before.master).await? == keys(&story, &after.master).await?).then_some(()))
    })
    .await
}

/// Whole copies that the living databases have given away.
async fn copies_given(story: &Story) -> Result<u64> {
    let mut sum = 0;
    for node in story.node_names() {
        sum += info_number(story.database_addr(&node)?, "stats", "sync_full").await.unwrap_or(0);
    }
    Ok(sum)
}

#[tokio::test]
async fn the_wait_for_the_session_of_the_node_that_was_is_bounded() -> Result<()> {
    let mut story = start(build()?.nodes(2)).await?;
    let before = story.cast().await?;
    let boot = |group: &cli::store::Group| group.view.members.get(&before.hot.as_str().into()).map(|m| m.boot.clone());
    let old = boot(&story.store()?.group(story.group()).await?).context("it is not registered")?;
    let died = story.kill_node(&before.hot)?;
    wipe(&story, &before.hot)?;
    story.restart_agent(&before.hot)?;
    until("a member under a session of its own", async || {
        let now = boot(&story.store()?.group(story.group()).await?);
        Ok(now.filter(|now| *now != old))
    })
    .await?;
    assert!(died.elapsed() < REGISTERED_WITHIN, "it took {:?}", died.elapsed());
    let after = story.cast().await?;
    assert_eq!((after.master, after.hot, after.epoch), (before.master, before.hot, before.epoch));
    Ok(())
}
