//! What the proxy says of itself over HTTP.

use crate::group::{Group, Picture};
use crate::metrics;
use crate::routes::GroupRoute;
use bytes::Bytes;
use election::GroupName;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A caller that has said nothing for so long has gone.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// Out of file descriptors: accepting again at once would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the pages are made from.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) groups: BTreeMap<GroupName, Arc<Group>>,
    pub(crate) draining: CancellationToken,
}

/// Answers until dropped.
pub(crate) async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(answer_all(stream, pages.clone()));
            }
            Err(error) => {
                warn!(%error, "cannot accept an HTTP request; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer_all(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(|request: Request<Incoming>| {
        let page = pages.page(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(page) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an HTTP connection has broken off");
    }
}

type Page = Response<Full<Bytes>>;

impl Pages {
    fn page(&self, method: &Method, path: &str) -> Page {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut page = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
            page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return page;
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(),
            "/routes" => page(StatusCode::OK, "application/json", self.routes().to_string()),
            "/metrics" => page(StatusCode::OK, "text/plain; version=0.0.4", metrics::text(&self.groups)),
            _ => match path.strip_prefix("/witness/") {
                Some(group) => self.witness(group),
                None => text(
                    StatusCode::NOT_FOUND,
                    "no such page; there are /healthz, /readyz, /routes, /metrics and /witness/GROUP\n",
                ),
            },
        }
    }

    fn ready(&self) -> Page {
        match self.not_ready() {
            None => text(StatusCode::OK, "ready\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
        }
    }

    /// Why clients should be sent elsewhere. Sockets are bound before anything is served.
    fn not_ready(&self) -> Option<String> {
        if self.draining.is_cancelled() {
            return Some("the proxy is stopping: it accepts no new clients".to_owned());
        }
        let unseen = self.groups.values().find(|g| g.picture().reachable.is_none())?;
        Some(format!("Consul has not answered yet for group {}", unseen.name))
    }

    fn routes(&self) -> Value {
        let groups: Vec<_> = self.groups.values().map(|g| group_json(&g.name, g.picture())).collect();
        json!({ "groups": groups })
    }

    fn witness(&self, group: &str) -> Page {
        let Some(group) = self.groups.get(&GroupName::from(group)) else {
            return text(StatusCode::NOT_FOUND, format!("this proxy has no listener for group {group}\n"));
        };
        let epoch = group.epoch();
        let said = json!({
            "group": group.name, "epoch": epoch, "heard_ms": group.heard.ms_since(epoch),
            "quiet": group.quiet_at().map(|stamp| stamp.to_string()),
        });
        page(StatusCode::OK, "application/json", said.to_string())
    }
}

fn group_json(name: &GroupName, picture: Picture) -> Value {
    let consul = match picture.reachable {
        None => "unseen",
        Some(true) => "reachable",
        Some(false) => "away",
    };
    let note = picture.refusal.map(|r| r.to_string());
    match picture.route {
        Some(GroupRoute { epoch, phase, master, replicas }) => json!({
            "group": name, "epoch": epoch, "phase": phase, "master": master, "replicas": replicas,
            "consul": consul, "note": note,
        }),
        None => json!({
            "group": name, "epoch": 0, "phase": null, "master": null, "replicas": [],
            "consul": consul, "note": note,
        }),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Page {
    page(status, "text/plain; charset=utf-8", body.into())
}

fn page(status: StatusCode, kind: &'static str, body: String) -> Page {
    let mut page = Response::new(Full::new(Bytes::from(body)));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    page
}
