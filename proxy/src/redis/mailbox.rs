//! How the rest of the proxy reaches a worker that waits for its sockets.

use super::mux::LinkId;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// What became of a dial.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) link: LinkId,
    pub(super) outcome: io::Result<TcpStream>,
}

/// Dialled links, orders, and a bell that wakes the worker. Orders stay in force: a worker that starts again obeys them.
#[derive(Debug)]
pub(super) struct Mailbox {
    dialled: Mutex<Vec<Dialled>>,
    drain: AtomicBool,
    end: AtomicBool,
    bell: OwnedFd,
}

impl Mailbox {
    /// # Errors
    /// When the system grants no descriptor.
    pub(super) fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { dialled: Mutex::default(), drain: false.into(), end: false.into(), bell })
    }

    pub(super) fn post(&self, dialled: Dialled) {
        self.dialled.lock().unwrap_or_else(PoisonError::into_inner).push(dialled);
        self.ring();
    }

    /// Accept no more clients.
    pub(super) fn drain(&self) {
        self.drain.store(true, Relaxed);
        self.ring();
    }

    /// Close everything and end.
    pub(super) fn end(&self) {
        self.end.store(true, Relaxed);
        self.ring();
    }

    /// Makes the worker look. It listens for the bell's edges, so nobody need silence it.
    pub(super) fn ring(&self) {
        // It fails only when it has rung 2^64 times.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    pub(super) fn take(&self) -> Vec<Dialled> {
        std::mem::take(&mut self.dialled.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.load(Relaxed)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.end.load(Relaxed)
    }

    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
