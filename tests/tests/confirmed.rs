//! A listener that carries bytes hands a client to a SQL server only when the server itself is what the record says: a
//! proxy that has lost Consul does not take a former master for the present one. And an agent that is silent keeps
//! nobody out.

use anyhow::{Result, ensure};
use config::Engine;
use understudy_tests::real::{
    Front, Gate, LIMIT, Story, Way, as_client, build, connect_postgres, counted, execute, select, start, until,
};

/// Waits less than a client here does.
const LISTENER: &str = "hold = \"500ms\"";

async fn group(engine: Engine) -> Result<Story> {
    let builder = build()?.engine(engine).nodes(2).policy("flap_pause", "\"1s\"");
    let mariadb = engine == Engine::Mariadb;
    start(if mariadb { builder.setting("innodb_buffer_pool_size", "\"16M\"") } else { builder }).await
}

/// Whether whoever listens there lets a client write.
async fn writes(engine: Engine, at: std::net::SocketAddr) -> Result<()> {
    if engine == Engine::Mariadb {
        return as_client(at).await?.run("CREATE OR REPLACE TABLE test.a (n int)").await;
    }
    execute(&mut connect_postgres(at).await?, "CREATE TABLE IF NOT EXISTS a (n int); INSERT INTO a VALUES (1)").await
}

async fn takes_no_writes(engine: Engine, at: std::net::SocketAddr) -> Result<bool> {
    if engine == Engine::Mariadb {
        return Ok(as_client(at).await?.column("SELECT @@read_only AS r", "r").await? == ["1"]);
    }
    Ok(select(at, "SELECT pg_is_in_recovery()::text").await? == ["true"])
}

async fn tell(engine: Engine) -> Result<()> {
    let story = group(engine).await?;
    if engine == Engine::Mariadb {
        as_client(story.proxy_addr()).await?.run("CREATE DATABASE IF NOT EXISTS test").await?;
    }
    let gate = Gate::open(&story.consul_address())?;
    let front = Front::start(&story, "stale", &gate.address(), &[LISTENER]).await?;
    let before = story.cast().await?;
    writes(engine, front.listener(0)).await?;

    gate.set(Way::Shut);
    let said = story.understudy(&["switchover", story.group()])?;
    ensure!(said.code == 0, "{said:?}");
    let after = story.cast().await?;
    assert_eq!(after.master, before.hot);
    assert_eq!(front.counted("epoch").await?, before.epoch, "it has not heard of the new master");
    // The former master lets readers in, as its agent, the route and the port would have it.
    let former = story.database_addr(&before.master)?;
    until("a former master that is a copy", async || Ok(takes_no_writes(engine, former).await?.then_some(()))).await?;
    for _ in 0..3 {
        assert!(takes_no_writes(engine, front.listener(0)).await.is_err(), "a client was handed to the former master");
    }
    assert!(front.counted("contradicted_total").await? > 0);
    gate.set(Way::Open);
    until("the way to the new master", async || Ok(Some(writes(engine, front.listener(0)).await?))).await?;

    // The agent dies: its database is the master still, and new clients get to it.
    let mut story = story;
    story.kill_agent(&after.master)?;
    for _ in 0..3 {
        writes(engine, story.proxy_addr()).await?;
    }
    assert!(counted(story.proxy_http(), "unconfirmed_total").await? > 0);
    story.restart_agent(&after.master)?;
    story.wait_whole(LIMIT).await?;
    Ok(())
}

#[tokio::test]
async fn a_postgres_that_is_master_no_more_is_handed_no_client() -> Result<()> {
    tell(Engine::Postgres).await
}

#[tokio::test]
async fn a_mariadb_that_is_master_no_more_is_handed_no_client() -> Result<()> {
    tell(Engine::Mariadb).await
}
