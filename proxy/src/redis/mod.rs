//! The `redis` mode: requests of many clients over few connections to the master, and no reply before it may leave.

#![allow(dead_code, unused_imports, reason = "the worker that drives the multiplexer comes next")]

pub(crate) mod mux;
