//! The program as a person runs it: what it says, its exit codes, and what it leaves behind.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod common;
mod demo;
mod group;
mod operator;
mod sentences;
