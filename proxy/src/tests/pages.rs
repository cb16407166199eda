//! What the proxy says over HTTP.

use super::world::{Echo, Front, round_trip};
use election::Phase;
use serde_json::{Value, json};

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).expect("JSON")
}

#[tokio::test]
async fn it_is_ready_once_consul_has_answered() {
    let front = Front::master().await;
    assert_eq!(front.get("/healthz").await.0, 200);
    let (status, reason) = front.get("/readyz").await;
    assert_eq!((status, reason.as_str()), (503, "Consul has not answered yet for group g\n"));
    // Being without Consul from the start is no answer either.
    front.group.lost_consul();
    assert_eq!(front.get("/readyz").await.0, 503);
    front.show(1, Phase::Promoting, None);
    assert_eq!(front.get("/readyz").await.0, 200);
    assert_eq!(front.ask("HEAD", "/readyz").await, (200, String::new()));
}

#[tokio::test]
async fn routes_are_as_the_contract_says() {
    let front = Front::master().await;
    let unseen = json!({ "group": "g", "epoch": 0, "phase": null, "master": null, "replicas": [], "consul": "unseen", "note": null });
    assert_eq!(parsed(&front.get("/routes").await.1), json!({ "groups": [unseen] }));
    let at = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    front.show_with(3, Phase::Active, Some(("a", at(11))), &[("a", at(11), at(1)), ("b", at(12), at(1))]);
    let seen = json!({
        "group": "g", "epoch": 3, "phase": "active",
        "master": { "id": "a", "address": "127.0.0.1", "port": 11 },
        "replicas": [{ "id": "b", "address": "127.0.0.1", "port": 12 }],
        "consul": "reachable", "note": null,
    });
    assert_eq!(parsed(&front.get("/routes").await.1), json!({ "groups": [seen] }));
}

#[tokio::test]
async fn a_witness_tells_when_it_last_heard_the_master_of_this_epoch() {
    let (front, a, b) = (Front::master().await, Echo::start("a"), Echo::start("b"));
    front.show(1, Phase::Active, Some(("a", a.address)));
    let unheard = json!({ "group": "g", "epoch": 1, "heard_ms": null, "quiet": null });
    assert_eq!(parsed(&front.get("/witness/g").await.1), unheard);
    round_trip(&mut front.client_of("a").await).await;
    let heard = parsed(&front.get("/witness/g").await.1);
    assert!(heard["heard_ms"].as_u64().is_some_and(|ms| ms < 20_000), "{heard}");
    front.show(2, Phase::Active, Some(("b", b.address)));
    let unheard = json!({ "group": "g", "epoch": 2, "heard_ms": null, "quiet": null });
    assert_eq!(parsed(&front.get("/witness/g").await.1), unheard);
    assert_eq!(front.get("/witness/nobody").await.0, 404);
}

#[tokio::test]
async fn counts_are_told_to_prometheus() {
    let (front, a) = (Front::master().await, Echo::start("a"));
    front.show(4, Phase::Active, Some(("a", a.address)));
    let _client = front.client_of("a").await;
    let (status, body) = front.get("/metrics").await;
    assert_eq!(status, 200);
    for sample in [
        "understudy_proxy_connections_total{group=\"g\"} 1",
        "understudy_proxy_connections_open{group=\"g\"} 1",
        "understudy_proxy_connections_held{group=\"g\"} 0",
        "understudy_proxy_epoch{group=\"g\"} 4",
        "understudy_proxy_consul_reachable{group=\"g\"} 1",
    ] {
        assert!(body.lines().any(|l| l == sample), "{sample} is not in\n{body}");
    }
}

#[tokio::test]
async fn other_pages_and_methods_are_refused_clearly() {
    let front = Front::master().await;
    let (status, body) = front.get("/nothing").await;
    assert_eq!(status, 404);
    assert!(body.contains("/routes"), "{body}");
    assert_eq!(front.ask("POST", "/routes").await.0, 405);
}
