//! Which copy is made hot replica: one in another zone rather than one that is preferred, and never one of priority 0.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};
use understudy_tests::real::{LIMIT, Lone, Story, build, start, start_unready, until};

/// How long a copy that may not be certified is looked at: several times what a certification takes.
const LEFT_ALONE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn of_two_spares_the_one_in_another_zone_is_certified() -> Result<()> {
    let mut story = start(build()?.nodes(4).proxies(0).zones()).await?;
    let before = story.cast().await?;
    let zone = |node: &String| format!("zone = \"{}\"", char::from(b'a' + node.as_bytes()[2] - b'1'));
    // The same zone as the master's, but for which it would be the first choice.
    let [near, far] = [&before.spares[0], &before.spares[1]];
    story.edit(near, &zone(near), &zone(&before.master))?;
    story.edit(near, "engine = \"redis\"", "engine = \"redis\"\npriority = 200")?;
    story.leave_agent(near, LIMIT).await?.context("the agent did not leave")?;
    story.restart_agent(near)?;
    let with_all = story.cast().await?;
    assert_eq!(with_all, before, "an agent's restart changes nothing");
    story.chain(&with_all).await?;
    let status = story.status().await?;
    let shown = |node: &String| status.member(node).and_then(|member| member.zone.clone());
    assert_eq!(shown(near), shown(&before.master), "{status:?}");

    story.kill_node(&before.hot)?;
    let gone = before.hot.as_str();
    let what = "another hot replica";
    let status = story.wait_until(what, LIMIT, |s| s.hot_replica().is_some_and(|hot| hot != gone)).await?;
    assert_eq!(status.hot_replica(), Some(far.as_str()), "{near} is in the zone of {}", before.master);
    assert_eq!(status.active_master(), Some(before.master.as_str()));
    Ok(())
}

/// Master and hot replica by the record; nothing when there is none.
async fn record(story: &Story) -> Result<Option<(Option<String>, Option<String>)>> {
    let record = story.store()?.group(story.group()).await?.view.record;
    let names = |(record, _): (election::Record, u64)| {
        (record.master.map(|master| master.id.to_string()), record.replica.map(|replica| replica.id.to_string()))
    };
    Ok(record.map(names))
}

async fn says(node: &Lone, code: &str) -> Result<String> {
    until(code, async || {
        let said = node.status().await?;
        anyhow::ensure!(said.reason_code == code, "{}: {}", said.reason_code, said.reason);
        Ok(Some(said.reason))
    })
    .await
}

#[tokio::test]
async fn a_node_of_priority_0_is_never_master_nor_hot_replica() -> Result<()> {
    let story = start_unready(build()?.nodes(0).proxies(0)).await?;
    let last =
        Lone::start(&story, "db1", |text| text.replace("engine = \"redis\"", "engine = \"redis\"\npriority = 0"))?;
    says(&last, "not_eligible").await?;
    assert_eq!(record(&story).await?, None, "it created the group");

    let first = Lone::start(&story, "db2", |text| text)?;
    says(&first, "serving_alone").await?;
    let since = Instant::now();
    while since.elapsed() < LEFT_ALONE {
        assert_eq!(record(&story).await?, Some((Some("db2".to_owned()), None)));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let _second = Lone::start(&story, "db3", |text| text)?;
    let both = Some((Some("db2".to_owned()), Some("db3".to_owned())));
    until("db3 as hot replica", async || Ok(Some(record(&story).await?).filter(|seen| *seen == both))).await?;
    until("a healthy copy behind it", async || Ok(last.status().await?.healthy.then_some(()))).await?;
    story.understudy(&["switchover", story.group(), "--to", "db1"])?.refused(1, &["db1", "its priority is 0"])?;
    assert_eq!(record(&story).await?, both);
    Ok(())
}
