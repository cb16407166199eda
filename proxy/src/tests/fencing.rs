//! A connection belongs to one epoch.

use super::world::{Echo, Front, assert_reset, record, round_trip};
use crate::routes::Seen;
use election::Phase;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

#[tokio::test]
async fn a_new_epoch_resets_the_clients_of_the_old_and_none_of_its_own() {
    let (front, a, b) = (Front::master().await, Echo::start("a"), Echo::start("b"));
    front.show(1, Phase::Active, Some(("a", a.address)));
    let mut old = Vec::new();
    for _ in 0..50 {
        old.push(front.client_of("a").await);
    }
    front.show(2, Phase::Promoting, Some(("b", b.address)));
    for client in &mut old {
        assert_reset(client).await;
    }
    // It is held while nobody is open, and carried to the new master.
    let mut held = front.client().await;
    front.show(2, Phase::Active, Some(("b", b.address)));
    assert_eq!(super::world::line(&mut held).await, "b");
    round_trip(&mut held).await;
    let mut new = front.client_of("b").await;
    round_trip(&mut new).await;
    assert_eq!(front.group.counters.cut.load(Relaxed), 50);
}

#[tokio::test]
async fn the_same_master_in_a_new_epoch_is_another_mastership() {
    let (front, a) = (Front::master().await, Echo::start("a"));
    front.show(1, Phase::Active, Some(("a", a.address)));
    let mut old = front.client_of("a").await;
    front.show(2, Phase::Active, Some(("a", a.address)));
    assert_reset(&mut old).await;
    round_trip(&mut front.client_of("a").await).await;
}

#[tokio::test]
async fn an_older_record_moves_nobody() {
    let (front, a, b) = (Front::master().await, Echo::start("a"), Echo::start("b"));
    front.show(5, Phase::Active, Some(("a", a.address)));
    let mut client = front.client_of("a").await;
    front.show(4, Phase::Active, Some(("b", b.address)));
    let none = BTreeMap::new();
    front.group.observe(Seen { record: None, fault: None, members: &none }, None);
    let mut stranger = record(9, 99, Phase::Active, Some(("b", b.address)));
    stranger.uid = "another group".into();
    front.group.observe(Seen { record: Some(&stranger), fault: None, members: &none }, None);
    round_trip(&mut client).await;
    round_trip(&mut front.client_of("a").await).await;
    let note = front.get("/routes").await.1;
    assert!(note.contains("belongs to another group"), "{note}");
    // The next true record is followed again.
    front.show(6, Phase::Active, Some(("b", b.address)));
    assert_reset(&mut client).await;
    front.client_of("b").await;
}

#[tokio::test]
async fn without_consul_the_last_known_route_stays() {
    let (front, a) = (Front::master().await, Echo::start("a"));
    front.show(1, Phase::Active, Some(("a", a.address)));
    let mut client = front.client_of("a").await;
    front.group.lost_consul();
    round_trip(&mut client).await;
    round_trip(&mut front.client_of("a").await).await;
    let routes = front.get("/routes").await.1;
    assert!(routes.contains(r#""consul":"away""#), "{routes}");
    assert_eq!(front.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn in_a_switchover_clients_go_on_until_the_next_epoch_and_new_ones_wait_for_it() {
    let (front, a, b) = (Front::master().await, Echo::start("a"), Echo::start("b"));
    front.show(1, Phase::Active, Some(("a", a.address)));
    let mut present = front.client_of("a").await;
    front.show(1, Phase::Switching, Some(("a", a.address)));
    let mut new = front.client().await;
    super::world::until("a client is held", async || front.group.counters.held.load(Relaxed) == 1).await;
    round_trip(&mut present).await;
    front.show(2, Phase::Active, Some(("b", b.address)));
    assert_reset(&mut present).await;
    assert_eq!(super::world::line(&mut new).await, "b");
}
