//! What the pages say of redis listeners.

use super::{Database, LIMIT, exchange, lead, master_front};
use serde_json::Value;

#[tokio::test]
async fn counts_are_told_to_prometheus_and_the_witness_has_heard_the_master() {
    let (front, database) = (master_front().await, Database::start("a").await);
    lead(&front, &database, 4);
    let mut client = front.client().await;
    exchange(&mut client, "PING\r\nSET k v\r\nGET k\r\n", "+PONG\r\n+OK\r\n$1\r\nv\r\n").await;
    exchange(&mut client, "SHUTDOWN\r\n", "-ERR ").await;
    // A worker counts at the end of its turn, after the client has its answer.
    let told = async || front.get("/metrics").await.1;
    let begun = std::time::Instant::now();
    let mut body = told().await;
    while !body.contains("redis_refused_total{group=\"g\"} 1") && begun.elapsed() < LIMIT {
        body = told().await;
    }
    for sample in [
        "understudy_proxy_connections_total{group=\"g\"} 1",
        "understudy_proxy_connections_open{group=\"g\"} 1",
        "understudy_proxy_redis_clients{group=\"g\"} 1",
        "understudy_proxy_redis_requests_total{group=\"g\"} 3",
        "understudy_proxy_redis_refused_total{group=\"g\"} 1",
        "understudy_proxy_redis_held{group=\"g\"} 0",
        "understudy_proxy_redis_unknown_total{group=\"g\"} 0",
    ] {
        assert!(body.lines().any(|l| l == sample), "{sample} is not in\n{body}");
    }
    let witness: Value = serde_json::from_str(&front.get("/witness/g").await.1).expect("JSON");
    assert!(witness["heard_ms"].as_u64().is_some_and(|ms| ms < 20_000), "{witness}");
}
