//! What holds for any bytes in place of a PostgreSQL server's or client's: the fuzz target.

#![allow(clippy::expect_used, reason = "a panic is what a fuzz target reports")]

use super::frames::{Frames, NotPostgres, Word};
use super::opening::{self, Opening};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A server's messages say the same in whatever pieces they arrive; a client's opening is one or is none, and is passed on
/// as it came.
///
/// # Panics
/// When that does not hold.
pub fn postgres(data: &[u8]) {
    let whole = words(data, data.len().max(1));
    for piece in [1, 2, 3, 7, 64] {
        assert_eq!(words(data, piece), whole, "in pieces of {piece}");
    }
    let mut client = Client(data);
    // It never waits, so it is ready the first time it is asked.
    let opened = std::pin::pin!(opening::receive(&mut client)).poll(&mut Context::from_waker(Waker::noop()));
    if let Poll::Ready(Ok(Opening::Startup(message) | Opening::Cancel { message, .. })) = &opened {
        let used = data.len() - client.0.len();
        assert!(data[..used].ends_with(message), "{message:?}");
    }
    assert!(opened.is_ready());
}

/// A client that has said all it has to say, and takes every answer.
struct Client<'a>(&'a [u8]);

impl AsyncRead for Client<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, rest) = self.0.split_at(self.0.len().min(into.remaining()));
        into.put_slice(now);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn words(data: &[u8], piece: usize) -> (Vec<Word>, Result<(), NotPostgres>) {
    let (mut frames, mut words) = (Frames::default(), Vec::new());
    for part in data.chunks(piece) {
        if let Err(fault) = frames.read(part, |word| words.push(word)) {
            return (words, Err(fault));
        }
    }
    (words, Ok(()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/postgres");
        let files = std::fs::read_dir(folder).expect("seeds").map(|entry| entry.expect("a seed").path());
        assert_ne!(files.map(|file| super::postgres(&std::fs::read(file).expect("readable"))).count(), 0);
    }
}
