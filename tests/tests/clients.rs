//! The libraries that people use, on the proxy's Redis protocol: the master is killed and replaced as planned while each
//! uses pipelines, transactions, scripts, blocking pops and pub/sub. A killed master may cost them a connection; a
//! planned switchover costs nothing, at a patience of one second; and nothing acknowledged is ever lost.

use anyhow::{Result, ensure};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, ProtocolVersion, RedisResult};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use understudy_tests::real::{LIMIT, ROUNDS, Script, Story, build, start, swing, until};

/// Patience of a client over a planned switchover.
const PATIENCE: Duration = Duration::from_secs(1);

fn all(address: SocketAddr) -> Result<Vec<Script>> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/clients/bin/python");
    let node = Path::new("node");
    let args = |protocol: Option<u8>| -> Vec<String> {
        let address = [address.ip().to_string(), address.port().to_string()];
        address.into_iter().chain(protocol.map(|p| p.to_string())).collect()
    };
    Ok(vec![
        Script::start("redis-py, RESP2", &python, "redis_py.py", &args(Some(2)))?,
        Script::start("redis-py, RESP3", &python, "redis_py.py", &args(Some(3)))?,
        Script::start("redis-py with asyncio, RESP2", &python, "redis_py_asyncio.py", &args(Some(2)))?,
        Script::start("redis-py with asyncio, RESP3", &python, "redis_py_asyncio.py", &args(Some(3)))?,
        Script::start("node-redis", node, "node_redis.js", &args(None))?,
    ])
}

async fn group() -> Result<Story> {
    start(build()?.nodes(3).listener("protocol = \"redis\"").policy("flap_pause", "\"1s\"")).await
}

#[tokio::test]
async fn libraries_survive_a_killed_master_and_do_not_notice_a_switchover() -> Result<()> {
    let story = group().await?;
    let mut clients = all(story.proxy_addr())?;
    swing(&mut clients).await?;

    let before = story.cast().await?;
    story.kill_database(&before.master)?;
    story.taken_over(&before.master).await?;
    swing(&mut clients).await?;

    let whole = story.cast().await?;
    story.wait_calm(LIMIT).await?;
    let before = swing(&mut clients).await?;
    let said = story.understudy(&["switchover", story.group()])?;
    ensure!(said.code == 0, "{said:?}");
    story.taken_over(&whole.master).await?;
    let after = swing(&mut clients).await?;
    for ((client, before), after) in clients.iter().zip(&before).zip(&after) {
        assert_eq!(before.errors, after.errors, "{} noticed the switchover: {:?}", client.name, after.last);
    }
    for client in &mut clients {
        let end = client.ask("stop").await?;
        assert!(end.written > 0 && end.lost.is_empty(), "{}: {end:?}", client.name);
    }
    Ok(())
}

async fn rust_client(address: SocketAddr, protocol: ProtocolVersion) -> Result<MultiplexedConnection> {
    until("a connection of the redis crate", async || {
        let settings = redis::RedisConnectionInfo::default().set_protocol(protocol);
        let address = redis::ConnectionAddr::Tcp(address.ip().to_string(), address.port());
        let info = redis::IntoConnectionInfo::into_connection_info(address)?.set_redis_settings(settings);
        let mut client = redis::Client::open(info)?.get_multiplexed_async_connection().await?;
        client.set_response_timeout(PATIENCE);
        Ok(Some(client))
    })
    .await
}

/// Goes through the ways of the `redis` crate once.
async fn round(client: &mut MultiplexedConnection, key: &str, number: u64) -> RedisResult<()> {
    let () = client.set(key, number).await?;
    let got: (u64, u64) = redis::pipe().atomic().incr(key, 1).incr(key, 1).query_async(client).await?;
    assert_eq!(got, (number + 1, number + 2));
    let got: Vec<u64> = redis::pipe().get(key).cmd("ECHO").arg(7).get(key).query_async(client).await?;
    assert_eq!(got, [number + 2, 7, number + 2]);
    let got: u64 = redis::Script::new("return redis.call('INCR', KEYS[1])").key(key).invoke_async(client).await?;
    assert_eq!(got, number + 3);
    let queue = format!("{key}:queue");
    let () = client.rpush(&queue, number).await?;
    let got: (String, u64) = client.blpop(&queue, 0.5).await?;
    assert_eq!(got, (queue, number));
    Ok(())
}

#[tokio::test]
async fn the_redis_crate_speaks_both_protocols_over_a_failover() -> Result<()> {
    let story = group().await?;
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let mut client = rust_client(story.proxy_addr(), protocol).await?;
        for number in 0..ROUNDS {
            round(&mut client, &format!("{protocol:?}:before:{number}"), number).await?;
        }
        let before = story.cast().await?;
        story.wait_calm(LIMIT).await?;
        story.kill_database(&before.master)?;
        story.taken_over(&before.master).await?;
        // Its connection was free when the master died, so that it may well go on; if it does not, a new one does.
        let mut number = 0;
        until("rounds after the failover", async || {
            number += 1;
            let mut client = rust_client(story.proxy_addr(), protocol).await?;
            Ok(Some(round(&mut client, &format!("{protocol:?}:after:{number}"), number).await?))
        })
        .await?;
        for number in 0..ROUNDS {
            let mut client = rust_client(story.proxy_addr(), protocol).await?;
            let kept: u64 = client.get(format!("{protocol:?}:before:{number}")).await?;
            assert_eq!(kept, number + 3, "{protocol:?}");
        }
        story.cast().await?;
    }
    Ok(())
}
