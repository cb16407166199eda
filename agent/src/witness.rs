//! Asks the proxies whether they still reach the master's database, while this node has lost sight of it.

use crate::instance::Message;
use crate::step::Event;
use consul::ProxiesView;
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// A word that comes later than this is too old to stop a suspicion.
const PATIENCE: Duration = Duration::from_millis(300);

/// Between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(150);

/// What a proxy answers at `/witness/<group>`.
#[derive(Debug, Deserialize)]
struct Word {
    epoch: u64,
    heard_ms: Option<u64>,
}

/// Asks, round after round, while `wanted` says so, until its sender is gone.
pub(crate) async fn run(
    group: String,
    http: reqwest::Client,
    mut wanted: watch::Receiver<bool>,
    proxies: watch::Receiver<ProxiesView>,
    events: mpsc::Sender<Message>,
) {
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let asked: Vec<(String, String)> =
            proxies.borrow().proxies.values().map(|p| (p.name.clone(), p.http.clone())).collect();
        let mut round = JoinSet::new();
        for (proxy, address) in asked {
            let request = http.get(format!("http://{address}/witness/{group}")).timeout(PATIENCE);
            round.spawn(async move { Some((proxy, request.send().await.ok()?.json::<Word>().await.ok()?)) });
        }
        while let Some(answer) = round.join_next().await {
            if let Ok(Some((proxy, Word { epoch, heard_ms: Some(ago_ms) }))) = answer {
                let _ = events.send(Message::Event(Event::Witness { proxy, epoch, ago_ms })).await;
            }
        }
        sleep(PAUSE).await;
    }
}
