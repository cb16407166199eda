//! No acknowledged write is lost: many clients write through two proxies while masters are killed, frozen, switched and
//! cut off. And the controls: the same harness convicts proxies that withhold nothing, a channel that is not exclusive,
//! and Sentinel.
//!
//! The long form is `UNDERSTUDY_FAILOVERS=50 cargo test -p understudy-tests --test no_write_lost over_failovers`.

use anyhow::{Context, Result, ensure};
use config::Engine;
use std::time::Duration;
use understudy_tests::chaos::{Fault, Load, Net, Plan, Sentinels, Setup, Stage, Store, on_net, on_stage, run};
use understudy_tests::history::{Promises, Verdict};
use understudy_tests::real::{Cast, LIMIT, attached, connect_as};

const CLIENTS: usize = 24;

/// Writes that show clients in full swing.
const SWING: u64 = 200;

/// What the redis protocol with `reads = "durable"` promises.
const ALL: Promises = Promises { reads: true, order: true };

#[test]
fn no_write_is_lost_over_failovers() -> Result<()> {
    let failovers = std::env::var("UNDERSTUDY_FAILOVERS").map_or(Ok(5), |text| text.parse())?;
    let report = run(&Plan {
        seed: 4,
        faults: Fault::failovers().to_vec(),
        together: 1,
        failovers,
        rounds: 4 * failovers,
        time: Duration::MAX,
        clients: CLIENTS,
        setup: Setup::of(Engine::Redis),
        promises: ALL,
        loud: true,
    })?;
    println!("{report}");
    assert!(report.is_clean(), "{report}");
    assert!(report.failovers >= failovers, "{report}");
    Ok(())
}

/// The master and one proxy with its clients stand alone on their side, until the other side has gone on; then all is
/// healed. What the history shows.
async fn a_master_cut_off_with_its_clients(stage: &mut Stage<'_>, promises: Promises) -> Result<Verdict> {
    let cast = stage.whole(LIMIT).await?;
    let load = stage.load(CLIENTS)?;
    load.wait_for(SWING, LIMIT).await?;
    cut_off(stage, &cast, &[&cast.master, "proxy1"]).await?;
    healed(stage, load, promises).await
}

/// Cuts `lonely` off from all others and waits until another master is open.
async fn cut_off(stage: &Stage<'_>, cast: &Cast, lonely: &[&str]) -> Result<()> {
    let others: Vec<&str> = stage.machines().into_iter().filter(|machine| !lonely.contains(machine)).collect();
    stage.net.cut(lonely, &others)?;
    stage.taken_over(&cast.master, LIMIT).await?;
    Ok(())
}

async fn healed(stage: &mut Stage<'_>, load: Load, promises: Promises) -> Result<Verdict> {
    load.wait_at(1, SWING, LIMIT).await.context("after the takeover")?;
    stage.heal()?;
    stage.whole(2 * LIMIT).await?;
    load.wait_for(SWING, LIMIT).await.context("after all was healed")?;
    let verdict = stage.judge(load, promises).await?;
    println!("{verdict}");
    Ok(verdict)
}

#[test]
fn a_master_cut_off_with_its_clients_acknowledges_nothing() -> Result<()> {
    on_stage(&Setup::of(Engine::Redis), async |stage| {
        let verdict = a_master_cut_off_with_its_clients(stage, ALL).await?;
        ensure!(verdict.is_clean(), "{verdict}\n{}", stage.rig.logs());
        Ok(())
    })
}

/// Control: nothing is withheld.
#[test]
fn lost_writes_are_found_behind_proxies_that_withhold_nothing() -> Result<()> {
    on_stage(&Setup::tcp(Engine::Redis), async |stage| {
        let verdict = a_master_cut_off_with_its_clients(stage, Promises::default()).await?;
        ensure!(!verdict.lost.is_empty(), "the harness is blind: {verdict}");
        Ok(())
    })
}

/// Control: acknowledgements are withheld, and a spare gives them. The master's and the spare's agent are stopped, so that
/// nobody throws the spare out.
#[test]
fn lost_writes_are_found_when_the_channel_is_not_exclusive() -> Result<()> {
    on_stage(&Setup::of(Engine::Redis), async |stage| {
        let cast = stage.whole(LIMIT).await?;
        let load = stage.load(CLIENTS)?;
        load.wait_for(SWING, LIMIT).await?;
        stage.rig.stop_agent(&cast.master)?;
        stage.rig.stop_agent(&cast.spares[0])?;
        attach(stage, &cast).await?;
        cut_off(stage, &cast, &[&cast.master, &cast.spares[0], "proxy1"]).await?;
        // Its two replicas lose their links; only the spare, on its side, comes back.
        let mut agent = as_agent(stage, &cast.master).await?;
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica").query_async::<()>(&mut agent).await?;
        load.wait_at(0, SWING, LIMIT).await.context("the spare acknowledges")?;
        let verdict = healed(stage, load, Promises::default()).await?;
        ensure!(!verdict.lost.is_empty(), "the harness is blind: {verdict}");
        Ok(())
    })
}

/// Makes the spare a second replica of the master, with the password that only the hot replica should have.
async fn attach(stage: &Stage<'_>, cast: &Cast) -> Result<()> {
    let (hot, spare) = (&cast.hot, &cast.spares[0]);
    let of_hot = [
        ("masteruser", setting(stage, hot, "masteruser").await?),
        ("masterauth", setting(stage, hot, "masterauth").await?),
    ];
    let mut agent = as_agent(stage, spare).await?;
    for (key, value) in of_hot {
        redis::cmd("CONFIG").arg("SET").arg(key).arg(value).query_async::<()>(&mut agent).await?;
    }
    let master = stage.rig.database_addr(&cast.master)?;
    redis::cmd("REPLICAOF").arg(master.ip().to_string()).arg(master.port()).query_async::<()>(&mut agent).await?;
    understudy_tests::real::until("two replicas behind the master", async || {
        Ok((attached(master).await?.len() == 2).then_some(()))
    })
    .await
}

async fn setting(stage: &Stage<'_>, node: &str, key: &str) -> Result<String> {
    let mut agent = as_agent(stage, node).await?;
    let pair: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(key).query_async(&mut agent).await?;
    pair.into_iter().nth(1).with_context(|| format!("no setting {key}"))
}

async fn as_agent(stage: &Stage<'_>, node: &str) -> Result<redis::aio::MultiplexedConnection> {
    let file = stage.rig.folder().join(node).join("agent").join(format!("{}.secret", stage.rig.group()));
    let password = std::fs::read_to_string(file)?;
    connect_as(stage.rig.database_addr(node)?, "understudy", password.trim()).await
}

/// Control: Redis Sentinel, with a master that is cut off and goes on acknowledging.
#[test]
fn lost_writes_are_found_behind_sentinel() -> Result<()> {
    on_net(&Sentinels::machines(), async |net: &Net| {
        let all = Sentinels::start(net).await?;
        let load = Load::start(&Store::redis(), CLIENTS, &[all.redis("redis1")?])?;
        load.wait_for(SWING, LIMIT).await?;
        net.cut(&["redis1"], &["redis2", "redis3"])?;
        let old = all.redis("redis1")?;
        let elected = async || Ok(Some(all.master("redis2")?).filter(|master| *master != old));
        let master = understudy_tests::real::until("another master", elected).await?;
        load.wait_for(SWING, LIMIT).await.context("the old master goes on")?;
        net.heal()?;
        understudy_tests::real::until("the old master behind the new one", async || {
            let role = understudy_tests::real::info(old, "replication").await?.remove("master_link_status");
            Ok(role.filter(|status| status == "up"))
        })
        .await?;
        tokio::time::timeout(Duration::from_secs(60), async {
            let verdict = Verdict::of(&load.finish(master)?, Promises::default());
            println!("{verdict}");
            ensure!(verdict.lost.len() as u64 >= SWING, "the harness is blind: {verdict}");
            Ok(())
        })
        .await?
    })
}
