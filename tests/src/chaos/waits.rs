//! Somebody who ends the commits that wait for the hot replica, as a person or a driver's time limit would.

use super::setup::Setup;
use super::sql::Client;
use anyhow::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Shorter than any client's patience.
const EVERY: Duration = Duration::from_millis(100);

/// The server is not cut off from us.
const PATIENCE: Duration = Duration::from_secs(5);

/// Goes on at one server until it is dropped.
#[derive(Debug)]
pub struct EndOfWaits {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl EndOfWaits {
    /// Begins, at the database itself.
    pub fn at(server: SocketAddr, setup: &Setup) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (stop, ended, store) = (stop.clone(), ended.clone(), setup.store.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    // The server is deposed in the end, and ends sessions.
                    let _ = Client::open(&store, server, PATIENCE)
                        .map_err(anyhow::Error::from)
                        .and_then(|client| go_on(client, &stop, &ended));
                    thread::sleep(EVERY);
                }
            }
        });
        Self { stop, ended, thread: Some(thread) }
    }

    /// How many waits were ended so far.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for EndOfWaits {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn go_on(mut client: Client, stop: &AtomicBool, ended: &AtomicU64) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        ended.fetch_add(client.end_waits()?, Ordering::Relaxed);
        thread::sleep(EVERY);
    }
    Ok(())
}
