//! One request to one of several Consul addresses, with failover where a second try can do no harm.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use config::ConsulConfig;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::error::{Attempt, Error, Right};
use crate::token::Token;

/// A Consul agent stands on the same machine or network; one that has not accepted by then will not.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// For everything that does not block on purpose. Consul answers in milliseconds; during an election of its own
/// servers it may take a second or two.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_millis(2_500);

/// One request, apart from where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    pub(crate) timeout: Duration,
    /// What it takes to be allowed.
    pub(crate) right: Right,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>, right: Right) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            query: Vec::new(),
            body: Bytes::new(),
            timeout: REQUEST_TIMEOUT,
            right,
        }
    }

    pub(crate) fn put(path: impl Into<String>, body: impl Into<Bytes>, right: Right) -> Self {
        Self { method: Method::PUT, body: body.into(), ..Self::get(path, right) }
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Verb and path, for messages.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// Consul's answer, whatever its status.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    /// `X-Consul-Index`, 0 when there is none.
    pub(crate) index: u64,
    pub(crate) body: Bytes,
    /// Which address answered.
    pub(crate) from: usize,
}

impl Reply {
    /// The first line of the body.
    pub(crate) fn line(&self) -> String {
        // Enough for every message of Consul's, short enough for a log line.
        const LIMIT: usize = 300;
        let text = String::from_utf8_lossy(&self.body);
        text.lines().next().unwrap_or_default().trim().chars().take(LIMIT).collect()
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|source| Error::Answer { request: call.name(), source })
    }

    /// This reply when it is a success; otherwise the error that it means.
    pub(crate) fn success(self, call: &Call) -> Result<Reply, Error> {
        if self.status.is_success() {
            return Ok(self);
        }
        let (request, detail) = (call.name(), self.line());
        if self.status == StatusCode::FORBIDDEN || is_denial(&detail) {
            return Err(Error::Denied { request, right: call.right.clone(), detail });
        }
        Err(Error::Status { request, code: self.status.as_u16(), detail })
    }
}

/// Some of Consul's endpoints report a denial with another status than 403.
pub(crate) fn is_denial(detail: &str) -> bool {
    detail.contains("Permission denied") || detail.contains("ACL not found")
}

/// Why one address gave no answer.
#[derive(Debug)]
pub(crate) struct Silence {
    pub(crate) why: String,
    /// The request certainly did not reach Consul.
    pub(crate) unsent: bool,
}

/// A write's way: answered, or not known.
#[derive(Debug)]
pub(crate) enum Sent {
    Answered(Reply),
    Unknown(Attempt),
}

/// The client, its addresses, and which of them answers at present.
pub(crate) struct Http {
    client: reqwest::Client,
    addresses: Vec<String>,
    current: AtomicUsize,
    token: Token,
    datacenter: Option<String>,
}

impl Http {
    pub(crate) fn new(settings: &ConsulConfig, tls: rustls::ClientConfig) -> Result<Self, Error> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // A web proxy between an agent and its Consul would be one more thing to fail.
            .no_proxy()
            .build()
            .map_err(|e| Error::Setup { why: chain(&e) })?;
        if settings.addresses.is_empty() {
            return Err(Error::Setup { why: "no address is configured".to_owned() });
        }
        let addresses = settings.addresses.iter().map(|a| a.trim_end_matches('/').to_owned()).collect();
        let token = Token::new(settings)?;
        Ok(Self { client, addresses, current: AtomicUsize::new(0), token, datacenter: settings.datacenter.clone() })
    }

    /// The addresses, from the one that answered last.
    pub(crate) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.current.load(Ordering::Relaxed), self.addresses.len());
        (0..count).map(move |i| (first + i) % count)
    }

    pub(crate) fn address(&self, at: usize) -> &str {
        &self.addresses[at]
    }

    pub(crate) fn token(&self) -> Option<election::Secret> {
        self.token.current()
    }

    pub(crate) fn datacenter(&self) -> Option<&str> {
        self.datacenter.as_deref()
    }

    /// Notes that `at` answers.
    pub(crate) fn stick_to(&self, at: usize) {
        if self.current.swap(at, Ordering::Relaxed) != at {
            tracing::info!(address = self.addresses[at], "talking to this Consul from now on");
        }
    }

    /// Notes that `at` failed: the next call begins with the one after it.
    pub(crate) fn leave(&self, at: usize) {
        let next = (at + 1) % self.addresses.len();
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A read: may be sent to one address after the other until one gives an answer that is no failure of its own.
    pub(crate) async fn read(&self, call: &Call) -> Result<Reply, Error> {
        let mut tried = Vec::new();
        for at in self.order() {
            match self.attempt(at, call).await {
                Ok(reply) if reply.status.is_server_error() && !is_denial(&reply.line()) => {
                    tried.push(self.failed(at, format!("status {}: {}", reply.status.as_u16(), reply.line())));
                }
                Ok(reply) => {
                    self.stick_to(at);
                    return Ok(reply);
                }
                Err(silence) => tried.push(self.failed(at, silence.why)),
            }
        }
        // All failed: begin with the first again, it is there that the operator wants us.
        self.current.store(0, Ordering::Relaxed);
        Err(Error::Unreachable { request: call.name(), tried })
    }

    /// A write: goes to another address only when it certainly did not reach this one.
    pub(crate) async fn write(&self, call: &Call) -> Result<Sent, Error> {
        let mut tried = Vec::new();
        for at in self.order() {
            match self.attempt(at, call).await {
                Ok(reply) if reply.status.is_server_error() && !is_denial(&reply.line()) => {
                    self.leave(at);
                    let why = format!("status {}: {}", reply.status.as_u16(), reply.line());
                    return Ok(Sent::Unknown(self.failed(at, why)));
                }
                Ok(reply) => {
                    self.stick_to(at);
                    return Ok(Sent::Answered(reply));
                }
                Err(silence) if silence.unsent => tried.push(self.failed(at, silence.why)),
                Err(silence) => {
                    self.leave(at);
                    return Ok(Sent::Unknown(self.failed(at, silence.why)));
                }
            }
        }
        self.current.store(0, Ordering::Relaxed);
        Err(Error::Unreachable { request: call.name(), tried })
    }

    /// What is to be told of an address that failed.
    pub(crate) fn failed(&self, at: usize, why: String) -> Attempt {
        Attempt { address: self.addresses[at].clone(), why }
    }

    /// One request to one address.
    pub(crate) async fn attempt(&self, at: usize, call: &Call) -> Result<Reply, Silence> {
        let url = format!("{}{}", self.addresses[at], call.path);
        let mut request = self.client.request(call.method.clone(), url).timeout(call.timeout).query(&call.query);
        if let Some(datacenter) = &self.datacenter {
            request = request.query(&[("dc", datacenter)]);
        }
        if let Some(token) = self.token.current() {
            request = request.header("X-Consul-Token", token.reveal());
        }
        if call.method != Method::GET {
            request = request.body(call.body.clone());
        }
        let response = request.send().await.map_err(|e| silence(&e))?;
        let status = response.status();
        let index = response.headers().get("x-consul-index").and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0);
        let body = response.bytes().await.map_err(|e| silence(&e))?;
        Ok(Reply { status, index, body, from: at })
    }
}

fn silence(error: &reqwest::Error) -> Silence {
    let why = if error.is_connect() && error.is_timeout() {
        format!("no connection within {} ms", CONNECT_TIMEOUT.as_millis())
    } else if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        innermost(error)
    };
    Silence { why, unsent: error.is_connect() || error.is_builder() }
}

/// The last cause tells what happened; the ones before it repeat the address.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A message with all its causes, for errors of set-up.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// A key as it stands in a path.
pub(crate) fn escape(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => text.push(byte as char),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn keys_are_escaped_for_a_path() {
        assert_eq!(escape("understudy/g-1/members/db_1.a~"), "understudy/g-1/members/db_1.a~");
        assert_eq!(escape("a b?c=ü&d%"), "a%20b%3Fc%3D%C3%BC%26d%25");
    }
}
