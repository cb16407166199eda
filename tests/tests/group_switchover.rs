//! An operator makes another node master under load, is refused with one clear sentence, and looks at the group.

use anyhow::{Context, Result};
use serde_json::Value;
use std::time::{Duration, Instant};
use understudy_tests::real::{LIMIT, SWING, build, start};

/// A switchover is an outage of tens of milliseconds; a busy machine may need far more, but not this.
const OUTAGE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn to_the_hot_replica_and_then_to_a_spare_without_losing_a_write() -> Result<()> {
    let story = start(build()?.nodes(3)).await?;
    let first = story.cast().await?;
    let mut writer = story.client("planned").await?;

    let asked = Instant::now();
    let said = story.understudy(&["switchover", "demo"])?;
    assert_eq!(said.code, 0, "{said:?}");
    said.holds(&[&format!("{} is master of demo in epoch {}", first.hot, first.epoch + 1)])?;
    let second = story.cast().await?;
    assert_eq!((&second.master, second.epoch), (&first.hot, first.epoch + 1));
    writer.wait_for_acks(SWING, asked, LIMIT).await?;
    let gap = writer.longest_gap(asked).context("no write after the switchover")?;
    assert!(gap < OUTAGE, "writes stood still for {gap:?}");
    story.chain(&second).await?;

    let spare = &second.spares[0];
    let said = story.understudy(&["switchover", "demo", "--to", spare])?;
    assert_eq!(said.code, 0, "{said:?}");
    let third = story.cast().await?;
    assert_eq!((&third.master, third.epoch), (spare, second.epoch + 1), "one takeover, whoever was made hot replica");
    story.chain(&third).await?;
    assert_eq!(story.lost(&mut writer).await?, 0);

    let history = story.history().await?;
    let planned: Vec<_> = history.iter().filter(|e| e.reason.contains("planned switchover")).collect();
    let masters: Vec<&str> = planned.iter().map(|e| e.master.as_str()).collect();
    assert_eq!(masters, [second.master.as_str(), third.master.as_str()]);
    Ok(())
}

#[tokio::test]
async fn a_node_that_cannot_be_the_target_is_refused_in_one_sentence() -> Result<()> {
    let mut story = start(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let to = |node: &str| story.understudy(&["switchover", "demo", "--to", node]);
    to(&before.master)?.refused(1, &[&before.master, "is the master of demo already", &before.hot])?;
    to("db9")?.refused(1, &["db9", "no node of that name", &before.hot])?;
    story.understudy(&["switchover", "other"])?.refused(1, &["there is no group `other`", "there is demo"])?;

    let spare = before.spares[0].clone();
    story.kill_node(&spare)?;
    let said = story.understudy(&["switchover", "demo", "--to", &spare])?;
    said.refused(1, &[&spare, "cannot be the target", &before.hot])?;
    story.kill_node(&before.hot)?;
    story.wait_until("a record without a hot replica", LIMIT, |s| s.replica.is_none()).await?;
    story.understudy(&["switchover", "demo"])?.refused(1, &["demo has no hot replica, so nobody could take over"])?;
    let now = story.status().await?;
    assert_eq!((now.active_master(), now.epoch), (Some(before.master.as_str()), before.epoch), "nothing has changed");
    Ok(())
}

#[tokio::test]
async fn status_explain_and_history_say_who_may_be_promoted_and_why() -> Result<()> {
    let story = start(build()?.nodes(3)).await?;
    let cast = story.cast().await?;
    story.chain(&cast).await?;
    let spare = &cast.spares[0];

    let table = story.understudy(&["status", "demo"])?;
    assert_eq!(table.code, 0, "{table:?}");
    table.holds(&["demo", "active", "sync", "hot replica", &cast.master, &cast.hot, spare, "clients in tcp mode"])?;
    let page: Value = serde_json::from_str(&story.understudy(&["status", "--json"])?.out)?;
    let group = &page["groups"][0];
    assert_eq!(group["group"], "demo");
    assert_eq!(group["epoch"], cast.epoch);
    assert_eq!(group["phase"], "active");
    assert_eq!(group["durability"], "sync");
    assert_eq!(group["paused"], false);
    assert_eq!(group["master"]["id"], cast.master);
    assert_eq!(group["master"]["port"], story.database_addr(&cast.master)?.port());
    assert_eq!(group["replica"]["id"], cast.hot);
    assert_eq!(group["replica"]["complete"], true);
    let members = group["members"].as_array().context("no members")?;
    assert_eq!(members.len(), 3);
    for member in members {
        for field in ["id", "role", "engine", "version", "address", "port", "position", "lag_bytes", "reason"] {
            assert!(!member[field].is_null(), "{field} in {member}");
        }
        assert_eq!(member["healthy"], true);
    }

    let said = story.understudy(&["explain", "demo"])?;
    said.holds(&["may be promoted", "may not be promoted", "nothing proves that its copy is complete"])?;
    let page: Value = serde_json::from_str(&story.understudy(&["explain", "demo", "--json"])?.out)?;
    let node = |id: &String| page["nodes"].as_array().into_iter().flatten().find(|n| n["id"] == *id);
    assert_eq!(node(&cast.hot).context("no hot replica")?["promotable"], true);
    let refused = node(spare).context("no spare")?;
    assert_eq!(refused["promotable"], false);
    assert_eq!(refused["rules"][0]["rule"], "the record names it master or hot replica");
    assert_eq!(refused["rules"][0]["ok"], false);

    let said = story.understudy(&["history", "demo"])?;
    said.holds(&["EPOCH", &cast.master, "DATA LOSS"])?;
    let page: Value = serde_json::from_str(&story.understudy(&["history", "demo", "--json"])?.out)?;
    assert_eq!(page["history"][0]["epoch"], 1);
    assert_eq!(page["history"][0]["master"], cast.master);
    Ok(())
}
