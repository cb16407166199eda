//! Free TCP ports on the loopback address.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Below the range that kernels give to outgoing connections, so that none of these takes the port in between.
const FIRST: u32 = 15_000;
const COUNT: u32 = 16_000;

/// The next port to try in this process, so that two callers never get the same one. 0: not begun.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that nobody listens on at this moment, given out once in this process.
pub fn free_port() -> io::Result<u16> {
    // Processes that start together begin far from each other.
    let _ = NEXT.compare_exchange(0, begin(), Ordering::Relaxed, Ordering::Relaxed);
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let Ok(port) = u16::try_from(port) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no port from {FIRST} to {} is free", FIRST + COUNT - 1)))
}

fn begin() -> u32 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    1 + (std::process::id().wrapping_mul(2_654_435_761) ^ nanos) % COUNT
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_port_is_given_out_twice() {
        let ports: BTreeSet<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 200);
    }

    #[test]
    fn a_taken_port_is_not_given_out() {
        let port = free_port().unwrap();
        let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        NEXT.store(u32::from(port) - FIRST, Ordering::Relaxed);
        assert_ne!(free_port().unwrap(), port);
    }
}
