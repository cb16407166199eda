//! PostgreSQL behind a listener of its protocol: requests to cancel, and transactions that a planned switchover waits for.

use anyhow::{Context, Result};
use cli::rig::{output, wait};
use config::Engine;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use understudy_tests::real::{Front, LIMIT, Story, connect_postgres, execute, quick, select, start, until};

async fn group() -> Result<Story> {
    start(quick(Engine::Postgres)?.listener("protocol = \"postgres\"")).await
}

fn psql(at: SocketAddr, sql: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-A", "-t", "-U", "postgres", "-c", sql, "postgres"]);
    command.env("PGHOST", at.ip().to_string()).env("PGPORT", at.port().to_string());
    command
}

/// Has `psql` sleep on one of `servers`, by way of `at`, and ends that as a person at the keyboard does.
async fn cancel(at: SocketAddr, servers: &[SocketAddr]) -> Result<()> {
    let mut psql = psql(at, "SELECT pg_sleep(600)").stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let sleeps = "SELECT pid::text FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'";
    let asleep = async || {
        for server in servers {
            if !select(*server, sleeps).await?.is_empty() {
                return Ok(Some(*server));
            }
        }
        Ok(None)
    };
    let server = until("a query that runs", asleep).await?;
    anyhow::ensure!(Command::new("kill").args(["-INT", &psql.id().to_string()]).status()?.success());
    let ended = wait(&mut psql, LIMIT)?.context("it goes on")?;
    let mut said = String::new();
    std::io::Read::read_to_string(&mut psql.stderr.take().context("no output")?, &mut said)?;
    assert!(!ended.success() && said.contains("canceling statement due to user request"), "{ended}: {said}");
    assert!(select(server, sleeps).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_request_to_cancel_reaches_the_server() -> Result<()> {
    let story = group().await?;
    let cast = story.cast().await?;
    let master = [story.database_addr(&cast.master)?];
    let copies = [story.database_addr(&cast.hot)?, story.database_addr(&cast.spares[0])?];
    // Bytes alone do not say whose key it is; but there is one master, and a connection to a former one is no more.
    let listeners = ["role = \"master\"", "role = \"replica\"\nprotocol = \"postgres\""];
    let front = Front::start(&story, "front", &story.consul_address(), &listeners).await?;
    cancel(story.proxy_addr(), &master).await?;
    cancel(front.listener(0), &master).await?;
    // The copies take turns, so that a request that was passed on as a new connection would meet the other one.
    for _ in 0..2 {
        cancel(front.listener(1), &copies).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_planned_switchover_waits_for_transactions_as_long_as_it_is_told() -> Result<()> {
    let story = group().await?;
    let before = story.cast().await?;
    let mut client = connect_postgres(story.proxy_addr()).await?;
    execute(&mut client, "CREATE TABLE work (n int PRIMARY KEY)").await?;
    let transaction =
        |n: u32, seconds: u32| format!("BEGIN; INSERT INTO work VALUES ({n}); SELECT pg_sleep({seconds}); COMMIT");
    let running = async |node: &str, n: u32| {
        let sql = format!(
            "SELECT pid::text FROM pg_stat_activity WHERE query LIKE '%VALUES ({n}); SELECT pg_sleep%'
                           AND wait_event = 'PgSleep'"
        );
        let address = story.database_addr(node)?;
        until("a transaction that runs", async || Ok((!select(address, &sql).await?.is_empty()).then_some(()))).await
    };
    let work = tokio::spawn(async move { execute(&mut client, &transaction(1, 10)).await });
    running(&before.master, 1).await?;
    let said = story.understudy(&["switchover", story.group(), "--grace", "30s"])?;
    assert_eq!(said.code, 0, "{said:?}");
    work.await?.context("it was to be let finish")?;
    let after = story.cast().await?;
    assert_eq!(after.master, before.hot);
    let rows = select(story.database_addr(&after.master)?, "SELECT n::text FROM work").await?;
    assert_eq!(rows, ["1"], "it ended before the hand-over, and nothing of it is lost");

    let mut long =
        psql(story.proxy_addr(), &transaction(2, 600)).stderr(Stdio::null()).stdout(Stdio::null()).spawn()?;
    running(&after.master, 2).await?;
    let said = story.understudy(&["switchover", story.group(), "--grace", "100ms"])?;
    assert_eq!(said.code, 0, "{said:?}");
    let ended = wait(&mut long, LIMIT)?.context("the long transaction was not ended")?;
    assert!(!ended.success());
    let last = story.cast().await?;
    assert_ne!(last.master, after.master);
    let rows = output(&mut psql(story.proxy_addr(), "SELECT n FROM work"), LIMIT)?;
    assert_eq!(String::from_utf8_lossy(&rows.stdout), "1\n");
    let said = story.understudy(&["switchover", story.group(), "--grace", "1h"])?;
    assert!(said.code == 2 && said.err.contains("1h is too long; 5m at the most"), "{said:?}");
    Ok(())
}
