//! Carries bytes between two sockets, both ways, with backpressure; an idle connection owns no buffer.

use socket2::SockRef;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Asked of one read. Measured with values of 1 MiB: less means more calls, more does not stay in a core's cache between
/// the read and the write.
pub(crate) const SCRATCH_BYTES: usize = 256 * 1024;

/// What a socket to a process of this same machine may have sent ahead; Linux doubles it. Nothing travels there that a
/// longer queue would keep busy: it only pushes out of the processor's cache what is about to be read. Measured with
/// values of 1 MiB, against splicing with the queues that the system chose: 1.5 times the requests a second.
const SHORT_QUEUE_BYTES: usize = 128 * 1024;

/// Reads in a row for one direction before others get their turn.
const ROUNDS: usize = 16;

/// So much in one read is bulk. Fewer bytes make no queue, and most connections never carry as many.
const BULK_BYTES: usize = 64 * 1024;

/// What is carried to and fro.
pub(crate) trait Side: AsyncRead + AsyncWrite + Unpin {
    /// Bulk is about to be sent here.
    fn expect_bulk(&self);
}

impl Side for TcpStream {
    /// Keeps the queue short of a connection within this machine. Between machines the system finds the length by itself.
    fn expect_bulk(&self) {
        let within = self.local_addr().and_then(|own| Ok(own.ip() == self.peer_addr()?.ip()));
        if within.unwrap_or(false) {
            // Refused, it is only slower.
            let _ = SockRef::from(self).set_send_buffer_size(SHORT_QUEUE_BYTES);
        }
    }
}

thread_local! {
    /// One buffer for all connections of a worker thread: a read and the write of what it brought happen within one
    /// poll, and only what the other side does not take is copied out.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Listens to what a backend sends.
pub(crate) trait Ear {
    /// This has arrived; nothing of it has been passed on.
    ///
    /// # Errors
    /// When it must not be passed on; that ends the relay.
    fn hear(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// An ear that only notes that something came.
impl<F: FnMut()> Ear for F {
    fn hear(&mut self, _: &[u8]) -> io::Result<()> {
        self();
        Ok(())
    }
}

/// Carries bytes until both directions have ended. `ear` listens to each arrival from `backend`.
///
/// The end of one direction is passed on, and the other goes on until it ends too: that end is told by the close, which
/// is the caller's.
///
/// # Errors
/// Whatever the first failing read or write says; what is under way in the other direction is given up.
pub(crate) async fn relay<C, B>(client: &mut C, backend: &mut B, ear: &mut impl Ear) -> io::Result<()>
where
    C: Side,
    B: Side,
{
    let (mut up, mut down) = (Way::default(), Way::default());
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let up_ended = up.poll(cx, client, backend, scratch, &mut || {})?.is_ready();
            let down_ended = down.poll(cx, backend, client, scratch, ear)?.is_ready();
            match (up_ended, down_ended) {
                (true, true) => Poll::Ready(Ok(())),
                (true, false) => up.pass_end_on(cx, backend),
                (false, true) => down.pass_end_on(cx, client),
                (false, false) => Poll::Pending,
            }
        })
    })
    .await
}

/// One direction. [`Way::poll`] is the only place that moves bytes.
#[derive(Default)]
struct Way {
    /// What was read and the receiver has not taken yet; not allocated while there is nothing. At most one scratch
    /// buffer's worth, since nothing is read before it is gone.
    unsent: Vec<u8>,
    /// How much of `unsent` the receiver has taken.
    taken: usize,
    source: Source,
    /// Whether the receiver knows of bulk.
    bulk: bool,
}

/// What is known of the sending side.
#[derive(Default, PartialEq)]
enum Source {
    #[default]
    Open,
    /// It has ended; the receiver has not been told.
    Ended,
    /// The receiver has been told.
    Told,
}

impl Way {
    /// Ready once the sender has ended and the receiver has everything.
    fn poll<R: Side, W: Side, E: Ear>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
        ear: &mut E,
    ) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS {
            ready!(self.poll_flush(cx, to))?;
            if self.source != Source::Open {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                self.source = Source::Ended;
            } else {
                ear.hear(buf.filled())?;
                if !self.bulk && buf.filled().len() >= BULK_BYTES {
                    to.expect_bulk();
                    self.bulk = true;
                }
                self.send(cx, to, buf.filled())?;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells the receiver, once. What is then waited for is the other direction, so this is never ready.
    fn pass_end_on<W: Side>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        if self.source == Source::Ended {
            ready!(Pin::new(to).poll_shutdown(cx))?;
            self.source = Source::Told;
        }
        Poll::Pending
    }

    /// Gives `bytes` to the receiver and keeps what it does not take.
    fn send<W: Side>(&mut self, cx: &mut Context<'_>, to: &mut W, mut bytes: &[u8]) -> io::Result<()> {
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

    fn poll_flush<W: Side>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
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
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;

    impl Side for DuplexStream {
        fn expect_bulk(&self) {}
    }

    /// A client, a backend, and a relay between them over pipes that hold `room` bytes.
    fn pair(room: usize) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let (client, mut inner) = duplex(room);
        let (backend, mut outer) = duplex(room);
        let relay = tokio::spawn(async move { relay(&mut inner, &mut outer, &mut || ()).await });
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

    /// What the future gives, which it must do in time.
    async fn limited<F: Future>(future: F) -> F::Output {
        tokio::time::timeout(Duration::from_secs(30), future).await.expect("nothing happened for much too long")
    }

    /// The two ends of a connection of this machine.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("somebody listens");
        (near, listener.accept().await.expect("connected").0)
    }

    #[tokio::test]
    async fn bursts_over_short_queues_arrive_whole() {
        let (mut client, mut inner) = connection().await;
        let (mut backend, mut outer) = connection().await;
        let clients_side = SockRef::from(&inner).try_clone().expect("a descriptor to spare");
        let relay = tokio::spawn(async move { relay(&mut inner, &mut outer, &mut || ()).await });
        let sent: Vec<u8> = (0..8_000_000_u32).map(|i| (i % 251) as u8).collect();
        for _ in 0..3 {
            let copy = sent.clone();
            let writer = tokio::spawn(async move {
                backend.write_all(&copy).await.expect("the relay takes it");
                backend
            });
            let mut got = vec![0; sent.len()];
            limited(client.read_exact(&mut got)).await.expect("all of it arrives");
            assert!(got == sent, "changed on the way");
            backend = writer.await.expect("no panic");
            client.write_all(b"more").await.expect("sent");
            limited(backend.read_exact(&mut got[..4])).await.expect("it arrives");
            backend.write_all(b"word").await.expect("sent");
            limited(client.read_exact(&mut got[..4])).await.expect("it arrives");
            assert_eq!(&got[..4], b"word");
            assert_eq!(clients_side.send_buffer_size().expect("it is open"), 2 * SHORT_QUEUE_BYTES);
        }
        drop((client, backend));
        relay.await.expect("no panic").expect("both ends were orderly");
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
        let mut ear = || ();
        let idle = relay(&mut inner, &mut outer, &mut ear);
        assert!(size_of_val(&idle) < 256, "{} bytes", size_of_val(&idle));
        drop((client, backend));
    }
}
