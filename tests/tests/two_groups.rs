//! Two groups on the same agents: each has its own master, and one that is ill does not slow the other.

use agent::api::{AgentStatus, InstanceStatus};
use anyhow::{Context, Result};
use cli::rig::{free_port, http};
use config::Engine;
use election::{Phase, Role};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use understudy_tests::real::{LIMIT, Lone, SWING, Story, build, send, start, start_unready, until, working_in};

/// The second group.
const OTHER: &str = "other";

/// A handover takes tens of milliseconds; a busy machine with two cores, longer. The ill database is not even killed
/// before 5 s.
const PROMPT: Duration = Duration::from_secs(3);

/// Gives every agent an instance of a second group.
async fn with_another(builder: cli::rig::Builder) -> Result<Story> {
    let mut story = start(builder).await?;
    for node in story.node_names() {
        let (port, data) = (free_port()?, story.folder().join(&node).join(OTHER));
        let instance = format!(
            "[[instance]]\ngroup = \"{OTHER}\"\nengine = \"redis\"\nport = {port}\ndata_dir = \"{}\"\n\n[[instance]]",
            data.display()
        );
        story.edit(&node, "[[instance]]", &instance)?;
        let left = story.leave_agent(&node, LIMIT).await?.context("the agent did not leave")?;
        assert!(left.success(), "{left}");
        story.restart_agent(&node)?;
    }
    story.cast().await?;
    whole(&story).await?;
    Ok(story)
}

/// What an agent says of its instance in the second group. It has to say so at once.
async fn other(story: &Story, node: &str) -> Result<InstanceStatus> {
    let url = format!("http://{}/status", story.agent_http(node)?);
    let request = http().get(url).timeout(PROMPT);
    let page: AgentStatus = request.send().await?.error_for_status()?.json().await?;
    page.instances.into_iter().find(|i| i.group == OTHER).context("no instance of the other group")
}

/// Waits until the second group is whole; the nodes that play master, hot replica and spare.
async fn whole(story: &Story) -> Result<[String; 3]> {
    until("the other group whole", async || {
        let mut cast = [const { String::new() }; 3];
        for node in story.node_names() {
            let said = other(story, &node).await?;
            anyhow::ensure!(said.healthy && said.phase == Some(Phase::Active), "{node}: {}", said.reason);
            let place = match said.role.context("no role")? {
                Role::Master => 0,
                Role::Replica => 1,
                Role::Spare => 2,
            };
            cast[place] = node;
        }
        anyhow::ensure!(cast.iter().all(|node| !node.is_empty()), "{cast:?}");
        Ok(Some(cast))
    })
    .await
}

/// The process of the second group's database.
fn pid(story: &Story, node: &str) -> Result<u32> {
    let note = std::fs::read(story.memory(node).join(format!("{OTHER}.run.json")))?;
    let note: serde_json::Value = serde_json::from_slice(&note)?;
    Ok(u32::try_from(note["pid"].as_u64().context("no pid")?)?)
}

#[tokio::test]
async fn an_ill_database_does_not_slow_the_other_group() -> Result<()> {
    let story = with_another(build()?.nodes(3).policy("flap_pause", "\"1s\"")).await?;
    let before = story.cast().await?;
    let [master, hot, _] = whole(&story).await?;
    // Whoever takes over in one group has an ill database of the other beside it.
    let ill = if master == before.hot { &master } else { &before.hot };
    let mut writer = story.client("healthy").await?;
    let stopped = pid(&story, ill)?;
    send(stopped, Signal::STOP)?;

    let died = story.kill_database(&before.master)?;
    let status = story.taken_over(&before.master).await?;
    let took = died.elapsed();
    assert_eq!(status.active_master(), Some(before.hot.as_str()));
    assert!(took < PROMPT, "beside an ill database a takeover took {took:?}");
    for node in story.node_names() {
        let asked = Instant::now();
        other(&story, &node).await.with_context(|| format!("{node} says nothing"))?;
        assert!(asked.elapsed() < PROMPT, "{node} took {:?} to say how it is", asked.elapsed());
    }
    writer.wait_for_acks(SWING, died, LIMIT).await?;
    // The ill one is killed by its own agent in the end, and its group goes on.
    until("another process", async || Ok(Some(pid(&story, ill)?).filter(|now| *now != stopped))).await?;
    let [after, ..] = whole(&story).await?;
    assert_eq!(after, if *ill == master { hot } else { master });
    story.cast().await?;
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_node_is_master_of_one_group_and_spare_of_the_other() -> Result<()> {
    let mut story = with_another(build()?.nodes(3)).await?;
    let before = story.cast().await?;
    let [master, ..] = whole(&story).await?;
    if master != before.spares[0] {
        let to = before.spares[0].as_str();
        let said = story.understudy(&["switchover", OTHER, "--to", to])?;
        assert_eq!(said.code, 0, "{said:?}");
    }
    let [master, hot, spare] = whole(&story).await?;
    assert_eq!(master, before.spares[0]);
    assert_eq!(story.cast().await?, before, "a switchover of one group is none of the other's");
    let place = SocketAddr::from(([127, 0, 0, 1], other(&story, &master).await?.port));
    redis::cmd("SET").arg("k").arg(1).query_async::<()>(&mut understudy_tests::real::connect(place).await?).await?;

    // The node with the master of one and the spare of the other is lost: one group changes its master, one does not.
    let mut writer = story.client("both").await?;
    story.kill_node(&master)?;
    send(pid(&story, &master)?, Signal::KILL)?;
    until("the other group's hot replica as master", async || {
        let said = other(&story, &hot).await?;
        anyhow::ensure!(said.role == Some(Role::Master) && said.phase == Some(Phase::Active), "{}", said.reason);
        Ok(Some(()))
    })
    .await?;
    let status = story.status().await?;
    assert_eq!((status.active_master(), status.epoch), (Some(before.master.as_str()), before.epoch));
    story.restart_agent(&master)?;
    let [after, next, last] = whole(&story).await?;
    assert_eq!((&after, &next, &last), (&hot, &spare, &master));
    assert_eq!(story.cast().await?, before);
    assert_eq!(story.lost(&mut writer).await?, 0);
    Ok(())
}

/// One agent beside a Redis, a PostgreSQL and a MariaDB: two that hang do not slow what becomes of the third.
#[tokio::test]
async fn hung_servers_do_not_slow_an_instance_of_another_engine() -> Result<()> {
    let story = start_unready(build()?.nodes(0).proxies(0)).await?;
    let sql = [(Engine::Postgres, free_port()?), (Engine::Mariadb, free_port()?)];
    let folder = story.folder().join("lone-db1");
    let instance = |(engine, port): (Engine, u16)| {
        let data = folder.join(engine.as_str());
        format!(
            "\n[[instance]]\ngroup = \"{engine}\"\nengine = \"{engine}\"\nport = {port}\ndata_dir = \"{}\"\n",
            data.display()
        )
    };
    let small = "[instance.settings]\ninnodb_buffer_pool_size = \"16M\"\n";
    let lone = Lone::start(&story, "db1", |text| text + &sql.map(instance).concat() + small)?;
    let instances = async || -> Result<Vec<InstanceStatus>> {
        let request = http().get(format!("http://127.0.0.1:{}/status", lone.http)).timeout(PROMPT);
        Ok(request.send().await?.error_for_status()?.json::<AgentStatus>().await?.instances)
    };
    let all_well = async || -> Result<Option<()>> {
        let said = instances().await?;
        let ill = said.iter().find(|instance| !instance.healthy);
        anyhow::ensure!(said.len() == 3 && ill.is_none(), "{:?}", ill.map(|ill| (&ill.group, &ill.reason)));
        Ok(Some(()))
    };
    until("three instances that are well", &all_well).await?;

    let servers = sql.map(|(engine, _)| lone.database_pid(engine.as_str()));
    for (engine, _) in sql {
        for pid in working_in(&folder.join(engine.as_str()))? {
            send(pid, Signal::STOP)?;
        }
    }
    let redis = lone.database_pid(story.group())?;
    send(redis, Signal::KILL)?;
    let died = Instant::now();
    until("the Redis again", async || {
        let said = instances().await?.into_iter().find(|instance| instance.group == story.group());
        let well = said.is_some_and(|instance| instance.healthy) && lone.database_pid(story.group())? != redis;
        Ok(well.then_some(()))
    })
    .await?;
    let took = died.elapsed();
    assert!(took < PROMPT, "beside servers that hang a restart took {took:?}");
    // They are ended by their agent in the end, and come back.
    for ((engine, _), before) in sql.into_iter().zip(servers) {
        let before = before?;
        until("another server", async || Ok((lone.database_pid(engine.as_str())? != before).then_some(()))).await?;
    }
    until("three instances that are well again", &all_well).await
}
