//! The front of Understudy: carries clients to the master that Consul names, and drops them when another is elected.
//!
//! What the proxy learns of a group becomes a route in one pure step ([`routes`]), is published to the connections,
//! and each connection obeys it by itself: it waits for somewhere to go, is carried, and is reset when its epoch ends.
//! A proxy has no state of its own; any number may run side by side.
//!
//! Each protocol is a folder: `tcp` carries bytes, `redis` requests and replies; `postgres` is carried by `tcp` with an
//! ear on what the server says.

mod ask;
mod confirm;
mod counters;
mod error;
mod group;
mod heard;
mod hold;
mod http;
mod lag;
mod learn;
mod limits;
mod listen;
mod metrics;
mod postgres;
mod quiet;
mod redis;
pub mod routes;
mod server;
mod stop;
mod target;
mod tcp;
mod worker;

#[cfg(test)]
mod tests;

/// The fuzz targets of this package.
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing {
    pub use crate::postgres::fuzzing::postgres;
    pub use crate::redis::fuzzing::{replies, requests};
}

pub use error::Error;
pub use server::{DRAIN_LIMIT, Proxy, run};
pub use stop::Stop;
