//! What tests, benchmarks and the simulation share.

pub mod real;
pub mod sim;
