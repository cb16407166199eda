//! Knocks at the recorded master's database, so that a silence of its agent alone starts nothing.
//!
//! Any byte in answer counts as life, an error as much as a greeting: the question is whether the process runs.

use crate::clock::Clock;
use crate::instance::Message;
use crate::step::{BEAT_EVERY_MS, Event, Sighting};
use election::Address;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// How long one knock may take. A silence is measured from the last answer, so this only bounds how soon the next
/// knock is tried.
const PATIENCE: Duration = Duration::from_millis(500);

/// After a refusal, the second look comes this soon.
const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// Knocks at whatever `target` holds, `None` being nobody, until its sender is gone.
pub(crate) async fn run(mut target: watch::Receiver<Option<Address>>, knock: Knock, events: mpsc::Sender<Message>) {
    let clock = Clock::start();
    loop {
        let address = target.borrow_and_update().clone();
        let knocking = async {
            match address {
                Some(address) => knock_on(&address, knock, &events, &clock).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = target.changed() => if changed.is_err() { return },
            () = knocking => sleep(LOOK_AGAIN).await,
        }
    }
}

/// What makes a database answer without a login.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Knock {
    /// What is sent; nothing where the server speaks first.
    pub(crate) greeting: &'static [u8],
    /// Whether the same connection answers it again; else each knock has a connection of its own.
    pub(crate) again: bool,
}

/// One connection for as long as it lasts.
async fn knock_on(address: &Address, how: Knock, events: &mpsc::Sender<Message>, clock: &Clock) {
    let began = clock.now();
    let connect = TcpStream::connect((address.host.as_str(), address.port));
    let mut stream = match timeout(PATIENCE, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => {
            let _ = events.send(Message::Event(Event::MasterDatabase(Sighting::Refused))).await;
            return;
        }
        _ => return,
    };
    let _ = stream.set_nodelay(true);
    let mut answer = [0; 256];
    loop {
        let asked = clock.now();
        let knock = async {
            stream.write_all(how.greeting).await?;
            stream.read(&mut answer).await
        };
        match timeout(PATIENCE, knock).await {
            Ok(Ok(n)) if n > 0 => {
                let _ = events.send(Message::Event(Event::MasterDatabase(Sighting::Heard))).await;
            }
            _ => return,
        }
        if !how.again {
            drop(stream);
            return sleep(clock.until(began.plus(BEAT_EVERY_MS))).await;
        }
        sleep(clock.until(asked.plus(BEAT_EVERY_MS))).await;
    }
}
