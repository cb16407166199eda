//! Bulk from socket to socket through a pipe of the kernel's: the bytes are not copied into this process and out again.

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Asked of one splice. A pipe holds 16 pieces of the sender's buffers, which on loopback are 32 KiB each.
const PIECE_BYTES: usize = 1 << 20;

/// Empty pipes that a worker thread keeps for the next burst.
const KEPT: usize = 8;

thread_local! {
    static IDLE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, and what is in it. Filled only while it is empty: else "would block" could mean a full pipe as well as a
/// silent sender, and a silent sender is waited for.
#[derive(Debug)]
pub(super) struct Bulk {
    /// None only while it is dropped.
    pipe: Option<Pipe>,
    held: usize,
}

#[derive(Debug)]
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Bulk {
    /// # Errors
    /// When the system grants no more descriptors.
    pub(super) fn begin() -> io::Result<Self> {
        let kept = IDLE.with_borrow_mut(Vec::pop);
        let pipe = match kept {
            Some(pipe) => pipe,
            None => {
                let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                Pipe { out, into }
            }
        };
        Ok(Self { pipe: Some(pipe), held: 0 })
    }

    /// Takes what the sender has, once all that was taken before has been passed on; 0 at its end. Pending while it
    /// has nothing.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || carry(from, &pipe.into, PIECE_BYTES)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    self.held = outcome?;
                    return Poll::Ready(Ok(self.held));
                }
            }
        }
    }

    /// Passes on what was taken. Pending while the receiver takes nothing.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(())) };
        while self.held > 0 {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || carry(&pipe.out, to, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                outcome => self.held -= outcome?,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        // A pipe with a rest in it is closed: its bytes are nobody else's.
        let Some(pipe) = self.pipe.take().filter(|_| self.held == 0) else { return };
        // At the thread's own end there is nothing to keep.
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            if idle.len() < KEPT {
                idle.push(pipe);
            }
        });
    }
}

fn carry(from: impl AsFd, to: impl AsFd, bytes: usize) -> io::Result<usize> {
    loop {
        match splice(&from, None, &to, None, bytes, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// How many empty pipes this thread keeps.
#[cfg(test)]
pub(super) fn kept() -> usize {
    IDLE.with_borrow(Vec::len)
}
