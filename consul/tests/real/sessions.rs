//! Sessions as Consul has them, and their keeper.

use consul::{Consistency, SessionKeeper, TxnOp};
use serde_json::Value;

use crate::helpers::{consul, eventually, get, until};

#[tokio::test]
async fn a_session_is_what_the_protocol_needs() {
    let (server, client) = consul().await;
    let id = client.create_session("db1").await.unwrap();
    let url = format!("{}/v1/session/info/{id}", server.http);
    let info: Value = get(url).await;
    let info = &info[0];
    assert_eq!(info["Name"], "db1");
    assert_eq!(info["TTL"], "10s");
    assert_eq!(info["Behavior"], "delete");
    assert_eq!(info["LockDelay"], 0, "a delay would make the takeover's transaction fail");
    let none = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
    assert!(none(&info["NodeChecks"]) && none(&info["ServiceChecks"]), "gossip must not end it: {info}");
}

#[tokio::test]
async fn a_session_takes_its_keys_with_it_and_is_unknown_after() {
    let (_server, client) = consul().await;
    let id = client.create_session("db1").await.unwrap();
    let lock = TxnOp::Lock { key: "k".to_owned(), value: vec![], session: id.clone() };
    assert!(client.transact(vec![lock]).await.unwrap().is_applied());
    assert!(client.renew_session(&id).await.unwrap());
    client.destroy_session(&id).await.unwrap();
    assert_eq!(client.get("k", Consistency::Consistent).await.unwrap(), None);
    assert!(!client.renew_session(&id).await.unwrap());
}

#[tokio::test]
async fn the_keeper_replaces_a_lost_session_and_ends_its_own() {
    let (_server, client) = consul().await;
    let keeper = SessionKeeper::start(client.clone(), "db1");
    let mut id = keeper.id();
    let first = until(&mut id, "a session", Option::is_some).await;
    client.destroy_session(first.as_deref().unwrap()).await.unwrap();
    keeper.look();
    let second = until(&mut id, "another session", |id| id.is_some() && *id != first).await;
    keeper.destroy().await;
    assert!(!client.renew_session(second.as_deref().unwrap()).await.unwrap(), "it was not ended");
}

#[tokio::test]
async fn the_keeper_keeps_the_session_while_consul_is_away() {
    let (server, client) = consul().await;
    let keeper = SessionKeeper::start(client.clone(), "db1");
    let mut id = keeper.id();
    let first = until(&mut id, "a session", Option::is_some).await;
    server.stop();
    keeper.look();
    // The keeper's own try has failed for sure once one that began after it has.
    assert!(client.renew_session(first.as_deref().unwrap()).await.is_err());
    assert_eq!(*id.borrow(), first, "only Consul's word ends a session");
    server.cont();
    let renewed = eventually(
        "renewed",
        async || client.renew_session(first.as_deref().unwrap()).await.unwrap_or(false),
        |renewed| *renewed,
    );
    renewed.await;
    assert_eq!(*id.borrow(), first);
    assert!(!id.has_changed().unwrap(), "it was given up in between");
}
