//! Carries bytes between two sockets, both ways, with backpressure; an idle connection owns no buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Measured: bulk transfers cost half the CPU of the 8 KiB that tokio's own copy uses, and more gains little.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;

/// Reads in a row for one direction before others get their turn: 1 MiB of bulk, well under a millisecond.
const ROUNDS: usize = 16;

thread_local! {
    /// One buffer for all connections of a worker thread: a read and the write of what it brought happen within one
    /// poll, and only what the other side does not take is copied out.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Carries bytes until both directions have ended. `heard` is called for each arrival from `backend`.
///
/// The end of one direction is passed on, and the other goes on until it ends too.
///
/// # Errors
/// Whatever the first failing read or write says; what is under way in the other direction is given up.
pub(crate) async fn relay<C, B>(client: &mut C, backend: &mut B, mut heard: impl FnMut()) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Pipe::default(), Pipe::default());
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let up = up.poll(cx, client, backend, scratch, &mut || ())?;
            let down = down.poll(cx, backend, client, scratch, &mut heard)?;
            if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
    })
    .await
}

/// One direction. [`Pipe::poll`] is the only place that moves bytes, so another way of moving them has one seam.
#[derive(Default)]
struct Pipe {
    /// What was read and the receiver has not taken yet; not allocated while there is nothing. At most one scratch
    /// buffer's worth, since nothing is read before it is gone.
    unsent: Vec<u8>,
    /// How much of `unsent` the receiver has taken.
    taken: usize,
    source: Source,
}

/// What is known of the sending side.
#[derive(Default, PartialEq)]
enum Source {
    #[default]
    Open,
    /// It has ended; the receiver has not been told.
    Ended,
    /// The receiver has been told.
    Closed,
}

impl Pipe {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
        heard: &mut impl FnMut(),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..ROUNDS {
            ready!(self.poll_flush(cx, to))?;
            match self.source {
                Source::Closed => return Poll::Ready(Ok(())),
                Source::Ended => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.source = Source::Closed;
                    return Poll::Ready(Ok(()));
                }
                Source::Open => {}
            }
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                self.source = Source::Ended;
                continue;
            }
            heard();
            self.send(cx, to, buf.filled())?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives `bytes` to the receiver and keeps what it does not take.
    fn send<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, bytes)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => bytes = &bytes[n..],
                Poll::Pending => {
                    self.unsent = bytes.to_vec();
                    break;
                }
            }
        }
        Ok(())
    }

    fn poll_flush<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while self.taken < self.unsent.len() {
            match ready!(Pin::new(&mut *to).poll_write(cx, &self.unsent[self.taken..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.taken += n,
            }
        }
        if self.taken > 0 {
            (self.unsent, self.taken) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    /// A client, a backend, and a relay between them over pipes that hold `room` bytes.
    fn pair(room: usize) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let (client, mut inner) = duplex(room);
        let (backend, mut outer) = duplex(room);
        let relay = tokio::spawn(async move { relay(&mut inner, &mut outer, || ()).await });
        (client, backend, relay)
    }

    #[tokio::test]
    async fn bytes_pass_unchanged_through_a_narrow_receiver() {
        let (mut client, mut backend, relay) = pair(7);
        let sent: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&copy).await.expect("the relay takes it");
            client.shutdown().await.expect("the end is passed on");
            let mut back = Vec::new();
            client.read_to_end(&mut back).await.expect("the answer arrives");
            back
        });
        let mut got = Vec::new();
        backend.read_to_end(&mut got).await.expect("all of it arrives");
        assert!(got == sent, "{} of {} bytes, or changed ones", got.len(), sent.len());
        backend.write_all(b"after your end").await.expect("the other direction is open");
        drop(backend);
        assert_eq!(writer.await.expect("no panic"), b"after your end");
        relay.await.expect("no panic").expect("both ends were orderly");
    }

    #[tokio::test]
    async fn a_receiver_that_takes_nothing_stops_the_sender() {
        let (mut client, backend, relay) = pair(1024);
        let limit = SCRATCH_BYTES + 2 * 1024;
        let (mut taken, mut refused) = (0, 0);
        // One thread runs both: a write that stays refused while the relay had a hundred turns stays so.
        while refused < 100 {
            match at_once(client.write(&[0; 512])).await {
                Some(n) => (taken, refused) = (taken + n.expect("the relay lives"), 0),
                None => refused += 1,
            }
            assert!(taken <= limit, "{taken} bytes were taken for a receiver that reads nothing");
            tokio::task::yield_now().await;
        }
        drop(backend);
        assert!(relay.await.expect("no panic").is_err(), "a receiver that is gone ends the relay with an error");
    }

    /// The outcome, if there is one at once.
    async fn at_once<F: Future>(future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(out) => Poll::Ready(Some(out)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn an_idle_relay_is_small() {
        let (client, mut inner) = duplex(8);
        let (backend, mut outer) = duplex(8);
        let idle = relay(&mut inner, &mut outer, || ());
        assert!(size_of_val(&idle) < 256, "{} bytes", size_of_val(&idle));
        drop((client, backend));
    }
}
