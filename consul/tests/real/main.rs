//! This package against a real Consul, and against servers that misbehave as Consul does in trouble.

#![allow(clippy::unwrap_used, reason = "what fails here fails a test, also in its helpers")]

mod access;
mod failover;
mod helpers;
mod operator;
mod presence;
mod registrar;
mod sessions;
mod transactions;
mod watching;
