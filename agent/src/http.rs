//! The agent's HTTP: `/status`, health, the endpoints of load balancers, and the peers' beats.

use crate::api::{AgentStatus, InstanceStatus};
use crate::engine::Asker;
use crate::engine::mariadb::copy::{Copies, PROOF_HEADER, SIZE_HEADER, Stream};
use crate::instance::Message;
use crate::peers::KEY_HEADER;
use bytes::Bytes;
use election::{Beat, Engine, EngineRole, Phase, Role, RoleWord, Status};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// A beat is about a kilobyte; what is much longer is none.
const BEAT_LIMIT: usize = 64 * 1024;

/// How long a client may take to send its request's head.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

/// After a failed accept (no more files, say) the next waits this long, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One instance, as the server sees it.
pub(crate) struct Served {
    pub(crate) status: watch::Receiver<Arc<InstanceStatus>>,
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) peer_key: String,
    /// Who serves copies of its database, where agents do.
    pub(crate) copies: Option<Copies>,
    /// Who asks its database what it is, for proxies.
    pub(crate) asker: Option<Asker>,
}

/// What the server answers from.
pub(crate) struct State {
    pub(crate) node: String,
    pub(crate) boot: String,
    pub(crate) instances: BTreeMap<String, Served>,
}

type Answer = Response<Either<Full<Bytes>, Copy>>;

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!("http: cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (state, stop) = (state.clone(), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(answer(&state, request).await) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
            tokio::select! {
                result = builder.serve_connection(TokioIo::new(stream), service) => {
                    if let Err(e) = result {
                        tracing::debug!("http: {e}");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn answer(state: &State, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    if path == "/peer" {
        return if request.method() == Method::POST { peer(state, request).await } else { not_allowed("POST") };
    }
    if let Some((served, "copy")) = instance_path(state, &path) {
        let proof = request.headers().get(PROOF_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default();
        return if request.method() == Method::POST {
            copy(served, proof.to_owned()).await
        } else {
            not_allowed("POST")
        };
    }
    let query = request.uri().query().map(str::to_owned);
    if let Some((served, "role")) = instance_path(state, &path)
        && matches!(*request.method(), Method::GET | Method::HEAD)
    {
        return role(served).await;
    }
    match *request.method() {
        Method::GET | Method::HEAD => get(state, &path, query.as_deref()),
        Method::OPTIONS => get(state, &path, query.as_deref()),
        _ => not_allowed("GET, HEAD, OPTIONS"),
    }
}

fn get(state: &State, path: &str, query: Option<&str>) -> Answer {
    match path {
        "/status" => json(StatusCode::OK, &page(state)),
        "/healthz" | "/liveness" => text(StatusCode::OK, "the agent runs\n"),
        "/readyz" | "/readiness" => ready(state),
        _ => match instance_path(state, path) {
            Some((served, what)) => health(&served.status.borrow(), what, query),
            None => {
                let groups: Vec<&str> = state.instances.keys().map(String::as_str).collect();
                let known = groups.join(", ");
                text(StatusCode::NOT_FOUND, &format!("nothing at {path}; this agent's groups: {known}\n"))
            }
        },
    }
}

/// `/<group>/<what>`, and Patroni's names where there is one instance.
fn instance_path<'a, 'p>(state: &'a State, path: &'p str) -> Option<(&'a Served, &'p str)> {
    let path = path.strip_prefix('/')?;
    if let Some((group, what)) = path.split_once('/')
        && let Some(served) = state.instances.get(group)
    {
        return Some((served, what));
    }
    let what = match path {
        "primary" | "master" | "api/leader-check" => "master",
        "synchronous" => "hot",
        "replica" => "replica",
        "read-only" => "read-only",
        _ => return None,
    };
    (state.instances.len() == 1).then(|| state.instances.values().next().map(|served| (served, what)))?
}

fn health(status: &InstanceStatus, what: &str, query: Option<&str>) -> Answer {
    let holds = match what {
        "master" => is_role(status, Role::Master) && status.phase == Some(Phase::Active),
        "hot" => is_role(status, Role::Replica),
        "spare" => is_role(status, Role::Spare),
        "replica" | "read-only" => {
            let lag = match max_lag(query) {
                Ok(asked) => asked.unwrap_or(status.max_lag),
                Err(why) => return text(StatusCode::BAD_REQUEST, &why),
            };
            let copy = is_role(status, Role::Replica) || is_role(status, Role::Spare);
            let near = status.lag_bytes.is_some_and(|bytes| bytes <= lag);
            (copy && near) || (what == "read-only" && is_role(status, Role::Master))
        }
        "health" => matches!(status.database, Engine::Up(_)),
        _ => return text(StatusCode::NOT_FOUND, "known here: master, hot, replica, spare, health, role\n"),
    };
    let code = if holds { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(code, status)
}

fn is_role(status: &InstanceStatus, role: Role) -> bool {
    status.role == Some(role) && status.healthy
}

/// `?lag=BYTES`.
fn max_lag(query: Option<&str>) -> Result<Option<u64>, String> {
    let Some(text) = query.and_then(|q| q.split('&').find_map(|pair| pair.strip_prefix("lag="))) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| format!("lag={text}: not a number of bytes\n"))
}

fn ready(state: &State) -> Answer {
    let waiting = state.instances.values().find_map(|served| {
        let status = served.status.borrow();
        let up = matches!(&status.database, Engine::Up(st) if !st.loading && !matches!(st.role, EngineRole::Follows { syncing: true, .. }));
        (!up || status.role.is_none()).then(|| format!("{}: {}\n", status.group, status.reason))
    });
    match waiting {
        Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
        None => text(StatusCode::OK, "every instance runs and has a role\n"),
    }
}

fn page(state: &State) -> AgentStatus {
    let instances: Vec<_> = state.instances.values().map(|s| (**s.status.borrow()).clone()).collect();
    AgentStatus {
        node: state.node.clone(),
        boot: state.boot.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        consul_reachable: instances.iter().all(|i| i.consul_reachable),
        instances,
    }
}

/// A peer's beat, answered with this side's.
async fn peer(state: &State, request: Request<Incoming>) -> Answer {
    let key = request.headers().get(KEY_HEADER).map(|v| v.as_bytes().to_vec()).unwrap_or_default();
    let Ok(body) = Limited::new(request.into_body(), BEAT_LIMIT).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "a beat is shorter than that\n");
    };
    let beat: Beat = match serde_json::from_slice(&body.to_bytes()) {
        Ok(beat) => beat,
        Err(e) => return text(StatusCode::BAD_REQUEST, &format!("not a beat: {e}\n")),
    };
    let Some(served) = state.instances.get(&beat.group) else {
        return text(StatusCode::NOT_FOUND, &format!("no instance of group {} here\n", beat.group));
    };
    if key != served.peer_key.as_bytes() {
        // Its agent is told, and this one when it calls there: one line each, not one for each beat.
        tracing::debug!(group = %beat.group, from = %beat.from, "a beat with another database password was refused");
        return text(StatusCode::FORBIDDEN, "the password files of the two nodes differ\n");
    }
    let (reply, answer) = oneshot::channel();
    let _ = served.messages.send(Message::Called(Box::new(beat), reply)).await;
    match answer.await {
        Ok(beat) => json(StatusCode::OK, &*beat),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n"),
    }
}

/// What an instance's database is, asked now.
async fn role(served: &Served) -> Answer {
    let Some(asker) = &served.asker else {
        return text(StatusCode::NOT_FOUND, "proxies ask this engine themselves\n");
    };
    match asker.role().await {
        Ok(role) => {
            let status = served.status.borrow().database.status().cloned();
            let (open, incarnation) = status.map(|Status { open, incarnation, .. }| (open, incarnation)).unzip();
            json(StatusCode::OK, &RoleWord { role, open, incarnation })
        }
        Err(e) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", crate::error_chain(&e))),
    }
}

/// A copy of an instance's database, for an agent that proves that it may replicate from it.
async fn copy(served: &Served, proof: String) -> Answer {
    let Some(copies) = &served.copies else {
        return text(StatusCode::NOT_FOUND, "this engine makes its copies by itself\n");
    };
    match copies.stream(&proof) {
        Ok(stream) => {
            let mut answer = Response::new(Either::Right(Copy(stream)));
            answer.headers_mut().insert(SIZE_HEADER, copies.size().await.into());
            answer
        }
        Err(why) => text(StatusCode::FORBIDDEN, &format!("{why}\n")),
    }
}

/// The body of a copy: as long as its source sends, and an error when that fails.
struct Copy(Stream);

impl Body for Copy {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn json(code: StatusCode, body: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_vec(body).unwrap_or_default();
    respond(code, "application/json", body)
}

fn text(code: StatusCode, body: &str) -> Answer {
    respond(code, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed here: {methods}\n"));
    answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static(methods));
    answer
}

fn respond(code: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    answer
}
