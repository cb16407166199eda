//! Looking at databases and at Consul without any code of Understudy in between.

use super::LIMIT;
use anyhow::{Context, Result};
use cli::rig::http;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Often enough that nobody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A database on this machine answers in microseconds, if it is given a processor; a stopped one never.
const ANSWER: Duration = Duration::from_secs(20);

/// For those that are looked at again and again, and may be stopped.
const INFO_ANSWER: Duration = Duration::from_secs(2);

/// Looks again and again until there is something to see. An error is something that may pass; the last one is told
/// when the time is over.
///
/// # Errors
/// When [`LIMIT`] is over.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + LIMIT;
    let mut last = "nothing".to_owned();
    while Instant::now() < deadline {
        // A look may hang as well as what is looked at.
        match tokio::time::timeout_at(deadline.into(), look()).await {
            Ok(Ok(Some(seen))) => return Ok(seen),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => last += ", and then a look that did not end",
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    anyhow::bail!("waited {} s in vain for {what}; last seen: {last}", LIMIT.as_secs())
}

/// A connection of a client without a password.
///
/// # Errors
/// When nobody answers for long.
pub async fn connect(address: SocketAddr) -> Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://{address}/"))?;
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER));
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

/// A section of a database's INFO.
///
/// # Errors
/// When it does not answer soon: it may be frozen.
pub async fn info(address: SocketAddr, section: &str) -> Result<BTreeMap<String, String>> {
    let asked = async {
        let mut connection = connect(address).await?;
        redis::cmd("INFO").arg(section).query_async::<String>(&mut connection).await.map_err(anyhow::Error::from)
    };
    let text = tokio::time::timeout(INFO_ANSWER, asked).await.context("no answer")??;
    let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// A number of a database's INFO.
///
/// # Errors
/// When it does not answer, or there is no such number.
pub async fn info_number(address: SocketAddr, section: &str, key: &str) -> Result<u64> {
    let found = info(address, section).await?.remove(key);
    Ok(found.with_context(|| format!("no {key} in INFO {section}"))?.parse()?)
}

/// The ports of the replicas attached to a database, in order, those online.
///
/// # Errors
/// When it does not answer.
pub async fn attached(address: SocketAddr) -> Result<Vec<u16>> {
    let info = info(address, "replication").await?;
    let links = info.iter().filter(|(key, _)| {
        key.strip_prefix("slave").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    });
    let online = links.filter(|(_, link)| link.contains("state=online"));
    let ports = online.filter_map(|(_, link)| link.split(',').find_map(|field| field.strip_prefix("port=")));
    let mut ports = ports.map(str::parse).collect::<Result<Vec<u16>, _>>()?;
    ports.sort_unstable();
    Ok(ports)
}

/// A connection of `user`.
///
/// # Errors
/// When nobody answers within two seconds, or the login is refused.
pub async fn connect_as(address: SocketAddr, user: &str, password: &str) -> Result<MultiplexedConnection> {
    let mut connection = connect(address).await?;
    redis::cmd("AUTH").arg(user).arg(password).query_async::<()>(&mut connection).await?;
    Ok(connection)
}

/// The instances of a group as plain Consul shows them: `query` such as `tag=master&passing`.
///
/// # Errors
/// When Consul does not answer.
pub async fn services(consul: &str, group: &str, query: &str) -> Result<Vec<serde_json::Value>> {
    let url = format!("{consul}/v1/health/service/{group}?{query}");
    Ok(http().get(url).send().await?.error_for_status()?.json().await?)
}
