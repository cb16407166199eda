//! The `redis` protocol with real databases.

mod carrying;
mod database;
mod durable;
mod fencing;
mod holding;
mod pages;
mod replicas;
mod stopping;

use super::world::{Front, LIMIT, config, limited, record};
use crate::routes::Seen;
use config::{ListenerRole, Protocol};
use database::Database;
use election::{Durability, Member, Phase, Policy, Record, Role};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Clients have as many; the marker's is one more.
const DATABASES: u32 = 16;

/// What an `async` group promises: replies leave as they come.
fn at_once() -> Policy {
    Policy { durability: Durability::Async, ..Policy::default() }
}

async fn front(role: ListenerRole, hold: Duration, drain_limit: Duration) -> Front {
    let mut config = config("127.0.0.1:0", role, hold);
    config.listeners[0].protocol = Protocol::Redis;
    Front::start_of(config, drain_limit).await
}

/// A front for the master that holds for long.
async fn master_front() -> Front {
    front(ListenerRole::Master, LIMIT, LIMIT).await
}

/// Shows a record to the proxy as Consul would.
fn show(front: &Front, record: &Record, policy: &Policy, members: &[&Database]) {
    let members: BTreeMap<_, _> = members.iter().map(|database| (database.name.into(), member(database))).collect();
    front.group.observe(Seen { record: Some(record), fault: None, members: &members }, Some(policy));
}

/// The ordinary record: this database is the master of an open epoch.
fn led_by(master: &Database, epoch: u64) -> Record {
    in_phase(master, epoch, Phase::Active)
}

fn in_phase(master: &Database, epoch: u64, phase: Phase) -> Record {
    let seq = epoch * 10 + u64::from(phase != Phase::Promoting) + u64::from(phase == Phase::Switching);
    let mut record = record(epoch, seq, phase, Some((master.name, master.address)));
    if let Some(named) = &mut record.master {
        named.incarnation = master.run_id.as_str().into();
    }
    record
}

/// Shows that this database is the master of an open epoch of an `async` group.
fn lead(front: &Front, master: &Database, epoch: u64) {
    show(front, &led_by(master, epoch), &at_once(), &[master]);
}

fn member(database: &Database) -> Member {
    Member {
        id: database.name.into(),
        address: database.address.ip().to_string(),
        port: database.address.port(),
        agent: database.agent.to_string(),
        engine: "redis".into(),
        version: String::new(),
        databases: Some(DATABASES),
        zone: None,
        role: Role::Spare,
        incarnation: None,
        priority: 100,
        adopt: false,
        uid: None,
        boot: "boot".into(),
    }
}

/// Sends, and sees exactly this come back.
async fn exchange(client: &mut TcpStream, request: &str, reply: &str) {
    client.write_all(request.as_bytes()).await.expect("sent");
    expect(client, reply).await;
}

/// Sees exactly this arrive.
async fn expect(client: &mut TcpStream, reply: &str) {
    let mut got = vec![0; reply.len()];
    limited(client.read_exact(&mut got)).await.unwrap_or_else(|error| panic!("{error} in place of {reply:?}"));
    assert_eq!(String::from_utf8_lossy(&got), reply);
}

/// A request as clients write it.
fn request(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text
}
