//! Groups of one, two, three and four real nodes come into being: roles, the chain of replication, and what plain
//! Consul shows of them.

use anyhow::{Context, Result};
use election::Role;
use std::collections::BTreeSet;
use std::time::Instant;
use understudy_tests::real::{Cast, LIMIT, SWING, Story, attached, build, cast_of, services, start, until};

/// The names under which Consul lists an instance by `query`, and nothing else.
async fn listed(story: &Story, query: &str) -> Result<BTreeSet<String>> {
    let found = services(&story.consul_address(), story.group(), query).await?;
    let node = |entry: &serde_json::Value| entry["Service"]["Meta"]["node"].as_str().map(str::to_owned);
    found.iter().map(|entry| node(entry).context("a service without node in its meta")).collect()
}

async fn listed_as(story: &Story, query: &str, nodes: &[&String]) -> Result<()> {
    let wanted: BTreeSet<String> = nodes.iter().map(|node| (*node).clone()).collect();
    until(&format!("{wanted:?} under {query}"), async || {
        let found = listed(story, query).await?;
        anyhow::ensure!(found == wanted, "{found:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn one_node_is_master_alone_and_comes_back_with_every_write() -> Result<()> {
    let story = start(build()?.nodes(1)).await?;
    let status = story.status().await?;
    assert_eq!(status.active_master(), Some("db1"));
    assert_eq!(status.hot_replica(), None);
    assert_eq!(story.agent("db1").await?.reason_code, "serving_alone");
    assert_eq!(story.setting("db1", "appendfsync").await?, "always", "its own disk is all there is");
    assert_eq!(story.setting("db1", "min-replicas-to-write").await?, "0", "nobody is there to be waited for");

    let mut writer = story.client("one").await?;
    let died = story.kill_database("db1")?;
    let after = story.wait_until("a second epoch", LIMIT, |s| s.epoch == 2 && s.is_whole(1)).await?;
    assert_eq!(after.active_master(), Some("db1"));
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    let why = story.history().await?.pop().context("no history")?.reason;
    assert!(why.contains("resumed from its own disk"), "{why}");
    Ok(())
}

#[tokio::test]
async fn two_nodes_are_a_master_and_its_certified_hot_replica() -> Result<()> {
    let story = start(build()?.nodes(2)).await?;
    let cast = story.cast().await?;
    assert_eq!((cast.epoch, cast.spares.len()), (1, 0));
    story.chain(&cast).await?;
    until("a master that waits for its replica", async || {
        let guard = story.setting(&cast.master, "min-replicas-to-write").await?;
        let fsync = story.setting(&cast.master, "appendfsync").await?;
        anyhow::ensure!((guard.as_str(), fsync.as_str()) == ("1", "everysec"), "{guard} {fsync}");
        Ok(Some(()))
    })
    .await?;
    let mut writer = story.client("two").await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn three_nodes_form_a_chain_that_plain_consul_shows() -> Result<()> {
    // A stopped database must stay ill for as long as the test looks at it.
    let story = start(build()?.nodes(3).zones().policy("hang_after", "\"5m\"")).await?;
    let cast = story.cast().await?;
    let spare = cast.spares.first().context("three nodes without a spare")?;
    story.chain(&cast).await?;

    for (role, node) in [("master", &cast.master), ("replica", &cast.hot), ("spare", spare)] {
        listed_as(&story, &format!("tag={role}&passing"), &[node]).await?;
        listed_as(&story, &format!("tag=role%3D{role}&passing"), &[node]).await?;
    }
    let found = services(&story.consul_address(), story.group(), "tag=master&passing").await?;
    let (meta, service) = (&found[0]["Service"]["Meta"], &found[0]["Service"]);
    assert_eq!(meta["epoch"], cast.epoch.to_string());
    assert_eq!(meta["engine"], "redis");
    assert!(["a", "b", "c"].contains(&meta["zone"].as_str().context("no zone")?), "{meta}");
    assert!(meta["version"].as_str().is_some_and(|v| v.contains('.')), "{meta}");
    assert_eq!(service["Port"], story.database_addr(&cast.master)?.port());

    listed_as(&story, "passing", &[&cast.master, &cast.hot, spare]).await?;
    let master = cast.master.clone();
    turns_critical_when_ill_or_left(story, &cast, spare, &master).await
}

/// The instance's database stops: its agent says so. Its agent dies: nobody says anything, and the check runs out.
async fn turns_critical_when_ill_or_left(mut story: Story, cast: &Cast, spare: &String, master: &String) -> Result<()> {
    story.stop_database(spare)?;
    listed_as(&story, "passing", &[master, &cast.hot]).await?;
    story.cont_node(spare)?;
    listed_as(&story, "passing", &[master, &cast.hot, spare]).await?;

    let killed = story.kill_agent(spare)?;
    listed_as(&story, "passing", &[master, &cast.hot]).await?;
    assert!(killed.elapsed().as_secs() >= 2, "a check of five seconds cannot have run out yet");
    story.restart_agent(spare)?;
    listed_as(&story, "passing", &[master, &cast.hot, spare]).await?;
    assert_eq!(&story.cast().await?, cast, "nothing of this is a change of roles");
    Ok(())
}

#[tokio::test]
async fn four_nodes_have_one_hot_replica_and_two_spares_behind_it() -> Result<()> {
    let story = start(build()?.nodes(4)).await?;
    let cast = story.cast().await?;
    assert_eq!(cast.spares.len(), 2);
    story.chain(&cast).await?;
    let status = story.status().await?;
    let masters: Vec<_> = status.members.iter().filter(|m| m.role == Role::Master).collect();
    assert_eq!(masters.len(), 1);

    let mut writer = story.client("four").await?;
    let since = Instant::now();
    writer.wait_for_acks(SWING, since, LIMIT).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    // What was written arrives at the end of the chain.
    for node in cast.spares.iter().chain([&cast.hot]) {
        let address = story.database_addr(node)?;
        until(&format!("{node} has every write"), async || {
            let missing = writer.missing(address).await?;
            anyhow::ensure!(missing.is_empty(), "{} are missing", missing.len());
            Ok(Some(()))
        })
        .await?;
    }
    assert_eq!(attached(story.database_addr(&cast.spares[0])?).await?, [0_u16; 0], "nobody follows a spare");
    assert_eq!(cast_of(&story.status().await?).context("no cast")?, cast);
    Ok(())
}
