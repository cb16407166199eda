//! Everything that knows Consul: HTTP, sessions, transactions, blocking queries, key names, registration.
//!
//! [`Consul`] is the client, cheap to clone. Callers see typed verbs and never an HTTP library. A write ends in one
//! of three ways ([`Written`]), and "not known" is one of them: nobody may take it for a failure.
//!
//! Nothing here decides anything about a group.

mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod http;
mod kv;
mod layout;
mod operator;
mod pace;
mod presence;
mod registrar;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod token;
mod txn;
mod view;
mod watch;

use std::sync::Arc;

pub use error::{Attempt, Error, Right, Written};
pub use kv::{Consistency, Entry, Listing};
pub use layout::{
    Forgotten, HISTORY_KEPT, Layout, Leader, PROXIES, ProxyListener, ProxyRecord, answer_ops, decode, proposal_ops,
};
pub use presence::Presence;
pub use registrar::{Registrar, Service, ServiceState, service_id};
pub use session::{SESSION_TTL, SessionKeeper};
pub use txn::TxnOp;
pub use view::{GroupView, ProxiesView};

/// A client of one Consul cluster by any of several addresses.
#[derive(Clone)]
pub struct Consul {
    inner: Arc<Inner>,
}

struct Inner {
    http: http::Http,
    operator: operator::Client,
    layout: Layout,
}

impl Consul {
    /// Makes the client. Reads the files that `settings` name; sends nothing yet.
    pub fn connect(settings: &config::ConsulConfig) -> Result<Self, Error> {
        let tls = tls::client_config(settings)?;
        let operator = operator::Client::new(tls.clone());
        let http = http::Http::new(settings, tls)?;
        let layout = Layout::new(settings.prefix.trim_matches('/'));
        Ok(Self { inner: Arc::new(Inner { http, operator, layout }) })
    }

    /// The key names under the configured prefix.
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    fn http(&self) -> &http::Http {
        &self.inner.http
    }
}
