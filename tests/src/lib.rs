//! What tests, benchmarks and the simulation share.

pub mod chaos;
pub mod history;
pub mod real;
pub mod sim;
