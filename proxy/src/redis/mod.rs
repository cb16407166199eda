//! The `redis` mode: requests of many clients over few connections to the master, and no reply before it may leave.
//!
//! `scan` finds where requests and replies end, `view` looks into them, `commands` says what a request is.

#![allow(dead_code, unused_imports, reason = "the worker that drives the multiplexer comes next")]

pub(crate) mod commands;
pub(crate) mod inline;
pub(crate) mod mux;
pub(crate) mod scan;
pub(crate) mod view;
