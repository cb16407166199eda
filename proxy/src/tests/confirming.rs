//! A client is handed to a SQL server only when that says, through its agent, what the record says.

use super::replicas::vouched;
use super::world::{Echo, Front, LIMIT, assert_reset, limited, line, until};
use config::ListenerRole;
use election::{Phase, RoleWord, ServerRole};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What an agent does when it is asked.
#[derive(Clone)]
enum Says {
    Word(RoleWord),
    /// As one whose server does not answer.
    Unavailable,
    /// It takes the question and never answers.
    Nothing,
}

/// An agent that says what the test tells it to, and that its instance is within the lag.
struct Teller {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    /// Times that it was asked what its server is.
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Teller {
    async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (says, asked) = (Arc::new(Mutex::new(says)), Arc::<AtomicUsize>::default());
        let (word, count) = (says.clone(), asked.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut unanswered = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 1024];
                let n = stream.read(&mut request).await.unwrap_or(0);
                if !request[..n].starts_with(b"GET /g/role ") {
                    respond(&mut stream, "200 OK", "").await;
                    continue;
                }
                count.fetch_add(1, Relaxed);
                let says = word.lock().expect("no panic").clone();
                match says {
                    Says::Word(word) => {
                        respond(&mut stream, "200 OK", &serde_json::to_string(&word).expect("JSON")).await;
                    }
                    Says::Unavailable => respond(&mut stream, "503 Service Unavailable", "").await,
                    Says::Nothing => unanswered.push(stream),
                }
            }
        });
        Self { address, says, asked, _serving: serving }
    }

    fn says(&self, says: Says) {
        *self.says.lock().expect("no panic") = says;
    }
}

async fn respond(stream: &mut TcpStream, status: &str, body: &str) {
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    // A proxy that has gone needs no answer.
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn word(role: ServerRole, open: bool, run: &str) -> Says {
    Says::Word(RoleWord { role, open: Some(open), incarnation: Some(run.into()) })
}

/// What the record's master says when all is well.
fn master() -> Says {
    word(ServerRole::Master, true, "run")
}

fn copy() -> Says {
    word(ServerRole::Copy, false, "run")
}

fn show(front: &Front, engine: &str, db: &Echo, agent: SocketAddr) {
    front.show_engine(engine, 1, Phase::Active, Some(("a", db.address)), &[("a", db.address, agent)]);
}

#[tokio::test]
async fn a_client_waits_while_the_server_is_not_what_the_record_says() {
    for against in [copy(), word(ServerRole::Master, false, "run"), word(ServerRole::Master, true, "another")] {
        let front = Front::master().await;
        let (db, agent) = (Echo::start("a"), Teller::start(against).await);
        show(&front, "mariadb", &db, agent.address);
        let mut client = front.client().await;
        until("it was asked again and again", async || agent.asked.load(Relaxed) > 2).await;
        assert!(timeout(Duration::from_millis(20), line(&mut client)).await.is_err(), "the client was handed over");
        assert!(front.group.counters.contradicted.load(Relaxed) > 1);
        agent.says(master());
        assert_eq!(line(&mut client).await, "a");
        // The good word is not for ever.
        let asked = agent.asked.load(Relaxed);
        until("it was asked again", async || {
            drop(front.client_of("a").await);
            agent.asked.load(Relaxed) > asked
        })
        .await;
    }
}

#[tokio::test]
async fn an_agent_that_is_silent_keeps_nobody_out() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    for says in [Some(Says::Nothing), Some(Says::Unavailable), None] {
        let front = Front::master().await;
        let db = Echo::start("a");
        let agent = match says {
            Some(says) => Some(Teller::start(says).await),
            None => None,
        };
        show(&front, "postgres", &db, agent.as_ref().map_or(gone, |agent| agent.address));
        for _ in 0..3 {
            drop(front.client_of("a").await);
        }
        assert_eq!(front.group.counters.unconfirmed.load(Relaxed), 3);
    }
}

#[tokio::test]
async fn those_who_come_together_ask_once() {
    let front = Front::master().await;
    let (db, agent) = (Echo::start("a"), Teller::start(master()).await);
    show(&front, "postgres", &db, agent.address);
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let mut client = front.client().await;
        clients.spawn(async move { line(&mut client).await });
    }
    while let Some(name) = clients.join_next().await {
        assert_eq!(name.expect("no panic"), "a");
    }
    let most = 2 + start.elapsed().as_millis() / 100;
    let asked = agent.asked.load(Relaxed);
    assert!(asked > 0 && u128::try_from(asked).is_ok_and(|asked| asked <= most), "{asked}, not {most} at the most");
}

#[tokio::test]
async fn the_agents_of_redis_are_not_asked() {
    let front = Front::master().await;
    let (db, agent) = (Echo::start("a"), Teller::start(copy()).await);
    show(&front, "redis", &db, agent.address);
    drop(front.client_of("a").await);
    assert_eq!(agent.asked.load(Relaxed), 0);
}

#[tokio::test]
async fn readers_are_not_sent_to_a_copy_that_is_none() {
    let front = Front::start(ListenerRole::Replica, LIMIT).await;
    let (a, b, c) = (Echo::start("a"), Echo::start("b"), Echo::start("c"));
    let (promoted, well) = (Teller::start(master()).await, Teller::start(copy()).await);
    let members = [("a", a.address, well.address), ("b", b.address, promoted.address), ("c", c.address, well.address)];
    front.show_engine("postgres", 1, Phase::Active, Some(("a", a.address)), &members);
    vouched(&front, 2).await;
    for _ in 0..4 {
        drop(front.client_of("c").await);
    }
}

#[tokio::test]
async fn a_server_that_does_not_become_what_it_should_be_is_given_up_after_hold() {
    let front = Front::start(ListenerRole::Master, Duration::from_millis(100)).await;
    let (db, agent) = (Echo::start("a"), Teller::start(copy()).await);
    show(&front, "mariadb", &db, agent.address);
    let mut client = front.client().await;
    limited(assert_reset(&mut client)).await;
    assert_eq!(front.group.counters.expired.load(Relaxed), 1);
}
