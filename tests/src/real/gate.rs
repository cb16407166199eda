//! A gate before Consul that can be ill: it lets requests through, answers 500, answers nothing, or slams the door.

use anyhow::Result;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// What Consul says whose leader is lost.
const NO_LEADER: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 17\r\nConnection: close\r\n\r\nNo cluster leader";

/// How the gate treats whoever comes. A change ends the connections that are under way, except for [`Way::Silent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Everything goes through.
    Open,
    /// Every request is answered with 500.
    Failing,
    /// Connections are accepted, and not a byte comes back, on those under way as well.
    Silent,
    /// Connections are closed at once.
    Shut,
}

/// The gate. Dropped, it is gone.
pub struct Gate {
    address: SocketAddr,
    way: watch::Sender<Way>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Gate {
    /// Opens a gate before `target`, `http://host:port`. On a thread of its own: a test may block.
    ///
    /// # Errors
    /// When no port is free.
    pub fn open(target: &str) -> Result<Self> {
        let target: SocketAddr = target.trim_start_matches("http://").parse()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (way, ways) = watch::channel(Way::Open);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = serve(listener, target, ways) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, way, stop: Some(stop), thread: Some(thread) })
    }

    /// Its address, `http://host:port`.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, target: SocketAddr, ways: watch::Receiver<Way>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (client, _) = listener.accept().await?;
        tokio::spawn(pass(client, target, ways.clone()));
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, mut ways: watch::Receiver<Way>) -> std::io::Result<()> {
    let way = *ways.borrow_and_update();
    match way {
        Way::Shut => Ok(()),
        Way::Silent => silence(&client, ways).await,
        Way::Failing => {
            // One request a connection: it says `close`.
            let mut request = [0_u8; 4_096];
            let _ = client.read(&mut request).await?;
            client.write_all(NO_LEADER).await
        }
        Way::Open => {
            let mut server = TcpStream::connect(target).await?;
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => Ok(()),
                () = changed(&mut ways) => {
                    let now = *ways.borrow();
                    if now == Way::Silent { silence(&client, ways).await } else { Ok(()) }
                }
            }
        }
    }
}

/// Until the way changes; then the connection ends.
async fn silence(_client: &TcpStream, mut ways: watch::Receiver<Way>) -> std::io::Result<()> {
    changed(&mut ways).await;
    Ok(())
}

async fn changed(ways: &mut watch::Receiver<Way>) {
    // An error means that the gate is gone, and its runtime with it.
    let _ = ways.changed().await;
}
