//! `understudy agent`, `proxy` and `check`: the verbs with a file.

use crate::exit::{Failure, chain};
use crate::out::print;
use config::Faults;
use std::path::Path;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Runs the agent until SIGTERM: it leaves, its databases and their registration stay; or SIGINT: it hands over, stops
/// its databases and deregisters them. A SIGTERM ends a drain that takes too long.
pub(crate) async fn agent(file: &Path) -> Result<(), Failure> {
    let loaded = config::load_agent(file).map_err(|faults| faulty(&faults))?;
    let (leave, drain) = (CancellationToken::new(), CancellationToken::new());
    let mut signals = Signals::new()?;
    tokio::spawn({
        let (leave, drain) = (leave.clone(), drain.clone());
        async move {
            loop {
                match signals.next().await {
                    Told::Terminate => leave.cancel(),
                    Told::Interrupt => drain.cancel(),
                }
            }
        }
    });
    agent::run(loaded.value, leave, drain).await.map_err(|error| Failure::new(chain(&error)))
}

/// Runs the proxy until SIGTERM or SIGINT: it drains. A second signal ends it at once.
pub(crate) async fn proxy(file: &Path) -> Result<(), Failure> {
    let loaded = config::load_proxy(file).map_err(|faults| faulty(&faults))?;
    refuse_unbuilt(&loaded.not_built_yet())?;
    let stop = proxy::Stop::new();
    let mut signals = Signals::new()?;
    tokio::spawn({
        let stop = stop.clone();
        async move {
            loop {
                signals.next().await;
                stop.request();
            }
        }
    });
    proxy::run(loaded.value, stop).await.map_err(|error| Failure::new(chain(&error)))
}

/// Says every fault of a file.
pub(crate) fn check(file: &Path) -> Result<(), Failure> {
    let kind = config::check(file).map_err(|faults| faulty(&faults))?;
    print(&format!("{} is a faultless file of the {kind}\n", file.display()))
}

fn refuse_unbuilt(faults: &Faults) -> Result<(), Failure> {
    if faults.is_empty() { Ok(()) } else { Err(faulty(faults)) }
}

/// Faults begin with their file's name, so they stand on lines of their own.
fn faulty(faults: &Faults) -> Failure {
    Failure::config(format!("the configuration is faulty\n{faults}"))
}

/// Which signal came.
enum Told {
    Terminate,
    Interrupt,
}

/// What ends a daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::of(&error));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Told {
        let (told, name) = tokio::select! {
            _ = self.terminate.recv() => (Told::Terminate, "SIGTERM"),
            _ = self.interrupt.recv() => (Told::Interrupt, "SIGINT"),
        };
        info!(signal = name, "told to stop");
        told
    }
}
