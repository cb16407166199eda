//! What a connection costs a proxy that has only once been used.

use super::stage::{Server, connect_through};
use anyhow::{Context, Result};
use std::net::TcpStream;
use std::time::Duration;

/// After the last answer a proxy may still be putting away what it needed for it.
const SETTLE: Duration = Duration::from_millis(500);

/// KiB of resident memory for each of `count` connections.
pub(super) async fn resident_kib_each(server: &Server, count: u32) -> Result<f64> {
    // What the first one costs is the process's, not the connection's.
    let first = connect_through(server.address())?;
    tokio::time::sleep(SETTLE).await;
    let before = server.usage()?.resident_kib;
    let opened: Vec<TcpStream> = (0..count)
        .map(|n| connect_through(server.address()).with_context(|| format!("connection {n} of {count}")))
        .collect::<Result<_>>()?;
    tokio::time::sleep(SETTLE).await;
    let after = server.usage()?.resident_kib;
    drop((first, opened));
    Ok((after as f64 - before as f64) / f64::from(count))
}
