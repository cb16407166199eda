//! Member and proxy records: there with their session, gone with it, back with the next.

use consul::{ProxyListener, ProxyRecord, SessionKeeper};
use election::NodeId;

use crate::helpers::{consul, group, member, until};

#[tokio::test]
async fn a_member_comes_changes_and_goes_with_its_agent() {
    let (_server, client) = consul().await;
    let node = NodeId::from("db1");
    let mut views = client.watch_group(&group());
    let keeper = SessionKeeper::start(client.clone(), "db1");
    let presence = client.keep_member(&group(), &node, keeper.id());
    presence.set(&member("db1", ""));
    until(&mut views, "the member", |v| v.members.contains_key(&node)).await;
    presence.set(&member("db1", "7.0.15"));
    until(&mut views, "its version", |v| v.members.get(&node).is_some_and(|m| m.version == "7.0.15")).await;
    keeper.destroy().await;
    until(&mut views, "its end", |v| v.members.is_empty()).await;
}

#[tokio::test]
async fn a_member_returns_with_a_new_session() {
    let (_server, client) = consul().await;
    let node = NodeId::from("db1");
    let mut views = client.watch_group(&group());
    let keeper = SessionKeeper::start(client.clone(), "db1");
    let mut id = keeper.id();
    let presence = client.keep_member(&group(), &node, keeper.id());
    presence.set(&member("db1", "7"));
    until(&mut views, "the member", |v| v.members.contains_key(&node)).await;
    let first = until(&mut id, "its session", Option::is_some).await.unwrap();
    client.destroy_session(&first).await.unwrap();
    until(&mut views, "its end", |v| v.members.is_empty()).await;
    keeper.look();
    until(&mut views, "its return", |v| v.members.contains_key(&node)).await;
}

#[tokio::test]
async fn a_restarted_agent_takes_over_the_record_of_its_earlier_run() {
    let (_server, client) = consul().await;
    let node = NodeId::from("db1");
    let mut views = client.watch_group(&group());
    let first = SessionKeeper::start(client.clone(), "db1");
    let presence = client.keep_member(&group(), &node, first.id());
    presence.set(&member("db1", "old"));
    until(&mut views, "the member", |v| v.members.contains_key(&node)).await;
    // Killed: nothing is said to Consul, and the session stands for up to twenty seconds more.
    drop((presence, first));

    let second = SessionKeeper::start(client.clone(), "db1");
    let presence = client.keep_member(&group(), &node, second.id());
    presence.set(&member("db1", "new"));
    until(&mut views, "the new run", |v| v.members.get(&node).is_some_and(|m| m.version == "new")).await;
    let id = second.id().borrow().clone().unwrap();
    client.destroy_session(&id).await.unwrap();
    until(&mut views, "bound to the new session", |v| v.members.is_empty()).await;
}

#[tokio::test]
async fn proxies_are_watched_like_members() {
    let (_server, client) = consul().await;
    let mut views = client.watch_proxies();
    let empty = until(&mut views, "the first answer", |v| v.seen).await;
    assert!(empty.proxies.is_empty());
    let keeper = SessionKeeper::start(client.clone(), "proxy1");
    let presence = client.keep_proxy("proxy1", keeper.id());
    let proxy = ProxyRecord {
        name: "proxy1".to_owned(),
        address: "10.0.0.21".to_owned(),
        http: "127.0.0.1:7401".to_owned(),
        version: "0.1.0".to_owned(),
        listeners: vec![ProxyListener {
            listen: "0.0.0.0:6380".to_owned(),
            groups: vec![group()],
            role: "master".to_owned(),
            protocol: "tcp".to_owned(),
        }],
    };
    presence.set(&proxy);
    let shown = until(&mut views, "the proxy", |v| v.proxies.contains_key("proxy1")).await;
    assert_eq!(shown.proxies["proxy1"], proxy);
    keeper.destroy().await;
    until(&mut views, "its end", |v| v.proxies.is_empty()).await;
}
