//! Binds sockets, one for each worker thread, and accepts clients on them.

use crate::Error;
use crate::tcp::Tcp;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Clients that may wait to be accepted, on each worker's socket. The kernel lowers it to `net.core.somaxconn`, which
/// is this much on current systems.
const BACKLOG: i32 = 4_096;

/// A client whose machine has gone without a word is noticed after this and nine probes; Redis asks at this pace too.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// Out of file descriptors or memory: accepting again at once would fail at once.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Finds the address that a file's `key` names.
///
/// # Errors
/// When it names none.
pub(crate) async fn resolve(key: &str, listen: &str) -> Result<SocketAddr, Error> {
    let failed = |source| Error::Listen { key: key.to_owned(), address: listen.to_owned(), source };
    let mut found = tokio::net::lookup_host(listen).await.map_err(failed)?;
    found.next().ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))
}

/// Binds `address` once for each of `count` workers: the kernel spreads clients over the sockets.
///
/// # Errors
/// When the address is taken, or is none of this machine's.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<StdListener>> {
    // Sockets that share a port would share it with another proxy as well, and take a part of its clients. So the
    // first one is bound to itself alone, and lets only then others join it.
    let first = socket(address)?;
    first.bind(&SockAddr::from(address))?;
    first.set_reuse_port(true)?;
    let address = local(&first)?;
    let mut sockets = vec![ready(first)?];
    while sockets.len() < count {
        let next = socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&SockAddr::from(address))?;
        sockets.push(ready(next)?);
    }
    Ok(sockets)
}

fn ready(socket: Socket) -> io::Result<StdListener> {
    // Accepted sockets inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a process that has just ended do not keep its successor from listening.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn local(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// Accepts clients until `drain`, then those that the kernel has accepted already, and gives the socket back.
pub(crate) async fn accept(listener: TcpListener, tcp: Arc<Tcp>, drain: CancellationToken, clients: TaskTracker) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                clients.spawn(tcp.clone().serve(stream));
            }
            Err(error) if concerns_one_client(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(group = %tcp.group.name, %error, "cannot accept clients; trying again");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Closing the socket would reset those that the kernel has let in.
    if let Ok(rest) = listener.into_std() {
        while let Ok((stream, _)) = rest.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                clients.spawn(tcp.clone().serve(stream));
            }
        }
    }
}

/// Whether the next client may fare better: this one broke off before it was accepted.
pub(crate) fn concerns_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_though_ports_are_shared_among_workers() {
        let first = bind(([127, 0, 0, 1], 0).into(), 3).expect("a free port");
        let address = first[0].local_addr().expect("bound");
        assert!(first.iter().all(|l| l.local_addr().is_ok_and(|a| a == address)));
        for count in [1, 3] {
            assert_eq!(bind(address, count).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        }
        drop(first);
        bind(address, 3).expect("free again");
    }
}
