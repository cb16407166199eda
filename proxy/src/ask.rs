//! One question to an agent over its HTTP.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// More than any agent answers; its largest page is its status, of some kilobytes.
const LONGEST: usize = 1 << 20;

/// Gets a page of the agent that listens at `agent`. The caller bounds the wait.
pub(crate) async fn get(
    agent: &str,
    path: &str,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(agent).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(header::HOST, agent).body(Empty::<Bytes>::new())?;
    // It ends by itself when the sender has gone; how it ends, the answer tells.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST).collect().await?.to_bytes();
    Ok((status, body))
}
