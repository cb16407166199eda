//! The proxy with real sockets on this machine; Consul is played by the test, and real in one of them.

mod carrying;
mod confirming;
mod fencing;
mod holding;
mod pages;
mod postgres;
mod redis;
mod replicas;
mod stopping;
mod with_consul;
mod world;
