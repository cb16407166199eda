//! Instances as services, asked for as those who use plain Consul ask.

use std::time::Instant;

use consul::testing::TestConsul;
use consul::{Registrar, Service, ServiceState};
use election::{Address, NodeId, Role};
use serde_json::Value;

use crate::helpers::{Trouble, Troubled, client_of, consul, eventually, get, group};

fn service() -> Service {
    Service {
        group: group(),
        node: NodeId::from("db1"),
        address: Address::new("10.0.0.11", 6379),
        engine: "redis".to_owned(),
        zone: Some("a".to_owned()),
    }
}

fn state(role: Role, health: Result<(), &str>) -> ServiceState {
    ServiceState { role, epoch: 3, version: "7.0.15".to_owned(), health: health.map_err(str::to_owned) }
}

async fn health(server: &TestConsul, query: &str) -> Vec<Value> {
    let url = format!("{}/v1/health/service/backend-redis?{query}", server.http);
    serde_json::from_value(get(url).await).unwrap()
}

async fn shows(server: &TestConsul, query: &str, count: usize) -> Vec<Value> {
    eventually(query, async || health(server, query).await, |found| found.len() == count).await
}

#[tokio::test]
async fn an_instance_is_found_by_role_with_its_meta() {
    let (server, client) = consul().await;
    let Service { group, node, .. } = service();
    let registrar = Registrar::start(client.clone(), service());
    registrar.set(state(Role::Master, Ok(())));
    let found = shows(&server, "tag=master&passing", 1).await;
    assert_eq!(client.service_ids(&group).await.unwrap(), [consul::service_id(&group, &node)]);
    let service = &found[0]["Service"];
    assert_eq!((service["Address"].as_str(), service["Port"].as_u64()), (Some("10.0.0.11"), Some(6379)));
    assert_eq!(service["Tags"], serde_json::json!(["master", "role=master"]));
    for (key, value) in [("node", "db1"), ("engine", "redis"), ("version", "7.0.15"), ("zone", "a"), ("epoch", "3")] {
        assert_eq!(service["Meta"][key], value, "{key}");
    }
    registrar.set(state(Role::Spare, Ok(())));
    shows(&server, "tag=spare&passing", 1).await;
    assert_eq!(health(&server, "tag=master").await.len(), 0, "the old role still stands");
    registrar.deregister().await;
    shows(&server, "", 0).await;
    assert_eq!(client.service_ids(&group).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_ill_instance_is_critical_at_once_and_says_why() {
    let (server, client) = consul().await;
    let registrar = Registrar::start(client, service());
    registrar.set(state(Role::Master, Ok(())));
    shows(&server, "passing", 1).await;
    let began = Instant::now();
    registrar.set(state(Role::Master, Err("the database gives no answer")));
    shows(&server, "passing", 0).await;
    assert!(began.elapsed().as_millis() < 2_000, "critical only after {:?}: the TTL did that", began.elapsed());
    let found = eventually(
        "the reason",
        async || health(&server, "").await,
        |found| found[0]["Checks"].to_string().contains("the database gives no answer"),
    );
    found.await;
    registrar.set(state(Role::Master, Ok(())));
    shows(&server, "passing", 1).await;
}

#[tokio::test]
async fn a_dead_agent_leaves_a_registered_instance_that_turns_critical() {
    let (server, client) = consul().await;
    let registrar = Registrar::start(client, service());
    registrar.set(state(Role::Master, Ok(())));
    shows(&server, "passing", 1).await;
    drop(registrar);
    shows(&server, "passing", 0).await;
    assert_eq!(health(&server, "").await.len(), 1, "it is still a member of its group");
}

#[tokio::test]
async fn a_living_agent_keeps_the_check_passing_beyond_its_ttl() {
    let (server, client) = consul().await;
    let registrar = Registrar::start(client, service());
    registrar.set(state(Role::Master, Ok(())));
    shows(&server, "passing", 1).await;
    let began = Instant::now();
    // Half as long again as the TTL of 5 s.
    while began.elapsed().as_millis() < 7_500 {
        assert_eq!(health(&server, "passing").await.len(), 1, "not passing after {:?}", began.elapsed());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_instance_is_registered_again_by_a_consul_that_forgot_it() {
    let (mut server, client) = consul().await;
    let registrar = Registrar::start(client, service());
    registrar.set(state(Role::Master, Ok(())));
    shows(&server, "passing", 1).await;
    server.restart().await.unwrap();
    shows(&server, "tag=master&passing", 1).await;
}

#[tokio::test]
async fn an_instance_is_registered_with_the_consul_that_answers_and_only_there() {
    let (mut first, _) = consul().await;
    let (second, _) = consul().await;
    let failing = Troubled::start(Trouble::Fail).await;
    let client = client_of(&[&failing.url, &first.http, &second.http]);
    let registrar = Registrar::start(client, service());
    registrar.set(state(Role::Replica, Ok(())));
    shows(&first, "tag=replica&passing", 1).await;
    assert_eq!(health(&second, "").await.len(), 0);
    first.kill();
    shows(&second, "tag=replica&passing", 1).await;
}
