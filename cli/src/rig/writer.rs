//! The writing client: unique keys at a steady pace, every acknowledgement remembered with its time.

use super::error::RigError;
use super::{resp, sql};
use config::Engine;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The pace that the figures are told for.
const EVERY: Duration = Duration::from_millis(5);

/// What ordinary clients wait.
const LIMIT: Duration = Duration::from_secs(1);

/// Keys read back in one request.
const BATCH: usize = 500;

/// Reading back is not measured: it may wait for a group that is just changing its master.
const READ_BACK_LIMIT: Duration = Duration::from_secs(20);

/// Often enough that nobody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Says where to connect; asked before every connection, so after every error.
pub type Route = Box<dyn FnMut() -> io::Result<SocketAddr> + Send>;

/// Always the same address: a proxy's.
pub fn fixed(server: SocketAddr) -> Route {
    Box::new(move || Ok(server))
}

/// A write that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The number of the write; numbers only grow.
    pub number: u64,
    /// When it was acknowledged.
    pub at: Instant,
    /// When the connection it went over was opened.
    pub connected_at: Instant,
    /// Where that connection led.
    pub server: SocketAddr,
}

/// A client on a thread of its own, that writes until it is dropped.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    prefix: String,
    stop: AtomicBool,
    acks: Mutex<Vec<Ack>>,
    last_error: Mutex<Option<String>>,
}

impl Writer {
    /// Begins to write keys `prefix:number` into a Redis.
    pub fn start(prefix: &str, route: Route) -> Self {
        Self::start_for(Engine::Redis, prefix, route)
    }

    /// The same into any engine: keys of a Redis, rows of the others.
    pub fn start_for(engine: Engine, prefix: &str, route: Route) -> Self {
        let shared = Arc::new(Shared {
            engine,
            prefix: prefix.to_owned(),
            stop: AtomicBool::new(false),
            acks: Mutex::new(Vec::new()),
            last_error: Mutex::new(None),
        });
        let thread = thread::spawn({
            let shared = shared.clone();
            move || write(&shared, route)
        });
        Self { shared, thread: Some(thread) }
    }

    /// Ends it: no write is under way afterwards. What it wrote can still be asked for.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// How many writes were acknowledged so far.
    pub fn acked(&self) -> usize {
        locked(&self.shared.acks).len()
    }

    /// What last went wrong, for a failure's report.
    pub fn last_error(&self) -> Option<String> {
        locked(&self.shared.last_error).clone()
    }

    /// The acknowledgements from `since` on.
    pub fn acks_since(&self, since: Instant) -> Vec<Ack> {
        let acks = locked(&self.shared.acks);
        let from = acks.partition_point(|ack| ack.at < since);
        acks[from..].to_vec()
    }

    /// The longest time without an acknowledgement that ended after `fault`, counted from the fault on.
    pub fn longest_gap(&self, fault: Instant) -> Option<Duration> {
        longest_gap(&self.acks_since(fault), fault)
    }

    /// The time from `fault` to the first acknowledgement that `counts` holds for.
    pub fn first_ack(&self, fault: Instant, counts: impl Fn(&Ack) -> bool) -> Option<Duration> {
        self.acks_since(fault).iter().find(|ack| counts(ack)).map(|ack| ack.at - fault)
    }

    /// Waits until `count` writes have been acknowledged after `since`.
    pub async fn wait_for_acks(&self, count: usize, since: Instant, limit: Duration) -> Result<(), RigError> {
        self.wait_for(count, since, limit, |_| true).await
    }

    /// Waits until `count` writes that `counts` holds for have been acknowledged after `since`.
    pub async fn wait_for(
        &self,
        count: usize,
        since: Instant,
        limit: Duration,
        counts: impl Fn(&Ack) -> bool,
    ) -> Result<(), RigError> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.acks_since(since).iter().filter(|ack| counts(ack)).count() >= count {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(RigError::Late {
            what: format!("{count} acknowledged writes"),
            seconds: limit.as_secs(),
            seen: self.last_error().unwrap_or_else(|| "no error at the client".to_owned()),
            logs: String::new(),
        })
    }

    /// Reads every acknowledged write back and gives the numbers of those that are not there.
    pub async fn missing(&self, server: SocketAddr) -> Result<BTreeSet<u64>, RigError> {
        let numbers: Vec<u64> = locked(&self.shared.acks).iter().map(|ack| ack.number).collect();
        let mut missing = BTreeSet::new();
        for batch in numbers.chunks(BATCH) {
            missing.extend(self.missing_of(batch, server).await?);
        }
        Ok(missing)
    }

    /// Asks again until there is an answer: only an answer says that a key is not there.
    async fn missing_of(&self, numbers: &[u64], server: SocketAddr) -> Result<Vec<u64>, RigError> {
        let deadline = Instant::now() + READ_BACK_LIMIT;
        loop {
            let read = match self.shared.engine {
                Engine::Redis => self.read(numbers, server).await.map_err(io::Error::other),
                engine => self.read_rows(engine, numbers, server).await,
            };
            let why = match read {
                Ok(values) => {
                    let pairs = numbers.iter().zip(values);
                    return Ok(pairs.filter(|(n, value)| *value != Some(**n)).map(|(n, _)| *n).collect());
                }
                Err(why) => why,
            };
            if Instant::now() > deadline {
                return Err(RigError::ReadBack { address: server.to_string(), why: why.to_string() });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn read_rows(&self, engine: Engine, numbers: &[u64], server: SocketAddr) -> io::Result<Vec<Option<u64>>> {
        let names: Vec<String> = numbers.iter().map(|number| key(&self.shared.prefix, *number)).collect();
        let rows: BTreeMap<String, u64> = sql::read(engine, server, &names).await?.into_iter().collect();
        Ok(names.iter().map(|name| rows.get(name).copied()).collect())
    }

    async fn read(&self, numbers: &[u64], server: SocketAddr) -> redis::RedisResult<Vec<Option<u64>>> {
        let client = redis::Client::open(format!("redis://{server}/"))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut request = redis::cmd("MGET");
        for number in numbers {
            request.arg(key(&self.shared.prefix, *number));
        }
        request.query_async(&mut connection).await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A connection, where it leads, and when it was opened.
struct Open {
    wire: Wire,
    server: SocketAddr,
    at: Instant,
}

enum Wire {
    Redis(resp::Connection),
    Sql(sql::Connection),
}

impl Wire {
    fn open(engine: Engine, server: SocketAddr) -> io::Result<Self> {
        Ok(match engine {
            Engine::Redis => Wire::Redis(resp::Connection::open(server, LIMIT)?),
            engine => Wire::Sql(sql::Connection::open(engine, server, LIMIT)?),
        })
    }

    fn write(&mut self, name: &str, number: u64) -> io::Result<()> {
        match self {
            Wire::Redis(connection) => connection.set(name, &number.to_string()),
            Wire::Sql(connection) => connection.insert(name, number),
        }
    }
}

fn write(shared: &Shared, mut route: Route) {
    let mut connection: Option<Open> = None;
    let mut number = 0;
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        number += 1;
        match write_one(shared, &mut connection, &mut route, number) {
            Ok(ack) => locked(&shared.acks).push(ack),
            Err(error) => {
                // Whether the write was done is unknown: it is neither counted nor repeated.
                *locked(&shared.last_error) = Some(error.to_string());
            }
        }
        // A late write does not make the next ones crowd.
        next = (next + EVERY).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn write_one(shared: &Shared, connection: &mut Option<Open>, route: &mut Route, number: u64) -> io::Result<Ack> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => {
            let (at, server) = (Instant::now(), route()?);
            Open { wire: Wire::open(shared.engine, server)?, server, at }
        }
    };
    open.wire.write(&key(&shared.prefix, number), number)?;
    let ack = Ack { number, at: Instant::now(), connected_at: open.at, server: open.server };
    *connection = Some(open);
    Ok(ack)
}

fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}:{number}")
}

fn longest_gap(acks: &[Ack], fault: Instant) -> Option<Duration> {
    let ends = acks.iter().map(|ack| ack.at);
    let starts = std::iter::once(fault).chain(ends.clone());
    starts.zip(ends).map(|(start, end)| end.saturating_duration_since(start)).max()
}

/// A thread that panicked while it held the lock has left whole values behind it: they are only pushed and replaced.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks_at(fault: Instant, millis: &[u64]) -> Vec<Ack> {
        let at = |ms| fault + Duration::from_millis(ms);
        let server = SocketAddr::from(([127, 0, 0, 1], 1));
        millis.iter().map(|ms| Ack { number: *ms, at: at(*ms), connected_at: fault, server }).collect()
    }

    #[test]
    fn the_longest_gap_may_begin_at_the_fault_or_later() {
        let fault = Instant::now();
        let gap = |millis: &[u64]| longest_gap(&acks_at(fault, millis), fault).map(|d| d.as_millis());
        assert_eq!(gap(&[70, 75, 80]), Some(70));
        assert_eq!(gap(&[1, 5, 95, 100]), Some(90));
        assert_eq!(gap(&[]), None);
    }
}
