//! Free TCP ports on the loopback address.
//!
//! A port is given out before the server that is to listen on it starts, so nothing holds it meanwhile. That two
//! processes (tests that run at once) do not choose the same one, each takes whole blocks of ports for itself, and says
//! so by a socket of the block's name, which the kernel takes away with the process.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// Below the range that kernels give to outgoing connections, so that none of these takes the port in between.
const FIRST: u16 = 15_000;
/// Ports of a block: those of a group with its Consul.
const BLOCK: u16 = 50;
const BLOCKS: u16 = 320;

/// A block of this process.
struct Block {
    next: u16,
    end: u16,
    _claim: UnixListener,
}

/// The blocks of this process; the last one has ports left.
static BLOCKS_HERE: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A port that nobody listens on at this moment, given out once in this process and to no other one.
///
/// # Errors
/// When no port is free.
pub fn free_port() -> io::Result<u16> {
    let mut blocks = BLOCKS_HERE.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(block) = blocks.last_mut() {
            let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
            if let Some(port) = (block.next..block.end).find(free) {
                block.next = port + 1;
                return Ok(port);
            }
        }
        blocks.push(claim()?);
    }
}

/// A block that no process has.
fn claim() -> io::Result<Block> {
    let begin = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap_or(0);
    let mut blocks = (0..BLOCKS).map(|step| (begin + step) % BLOCKS);
    let claimed = blocks.find_map(|block| {
        let first = FIRST + block * BLOCK;
        let name = SocketAddr::from_abstract_name(format!("understudy-ports-{first}")).ok()?;
        Some(Block { next: first, end: first + BLOCK, _claim: UnixListener::bind_addr(&name).ok()? })
    });
    let all = format!("all ports from {FIRST} to {} are given out", FIRST + BLOCKS * BLOCK - 1);
    claimed.ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, all))
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
    fn no_block_is_given_to_two() {
        let (one, other) = (claim().unwrap(), claim().unwrap());
        assert_ne!(one.next, other.next);
    }

    #[test]
    fn a_taken_port_is_not_given_out() {
        let before = free_port().unwrap();
        let held: Vec<_> = (before + 1..before + BLOCK).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
        let port = free_port().unwrap();
        assert!(held.iter().flatten().all(|listener| listener.local_addr().unwrap().port() != port));
    }
}
