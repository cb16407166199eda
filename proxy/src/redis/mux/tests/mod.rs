//! The multiplexer in a small world of its own: clients and servers that are byte strings.

mod durable;
mod own;
mod random;
mod session;
mod straight;
mod switchover;
pub(super) mod world;
