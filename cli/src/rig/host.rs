//! Where a process of a rig runs: its address, and the network it sees.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// A machine of its own, as far as the network goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its address.
    pub address: IpAddr,
    /// The network namespace that processes are started in, a file such as `/run/netns/db1`; our own when not said.
    pub namespace: Option<PathBuf>,
}

impl Host {
    /// This machine's loopback address.
    pub fn loopback() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), namespace: None }
    }

    pub(super) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address, port))
    }
}
