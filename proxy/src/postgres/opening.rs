//! How a client opens a connection: the one kind of message without a byte of kind.
//!
//! Source: the PostgreSQL manual, "Frontend/Backend Protocol", Message Formats: `StartupMessage`, `CancelRequest`,
//! `SSLRequest`, `GSSENCRequest`.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// As long as PostgreSQL's own `authentication_timeout`.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// PostgreSQL's own limit (`MAX_STARTUP_PACKET_LENGTH`).
const LONGEST: usize = 10_000;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// To log in: the message as it is to be passed on.
    Startup(Vec<u8>),
    /// To end a query of another connection: that one's key, and the message.
    Cancel { key: Vec<u8>, message: Vec<u8> },
}

/// The first message's length and code.
const HEAD: usize = 8;

/// What the head of a client's message announces.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// Encryption is asked for.
    Encryption,
    /// A message of so many bytes, head included.
    Message(usize),
}

fn head(bytes: [u8; HEAD]) -> Option<Head> {
    let [a, b, c, d, e, f, g, h] = bytes;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    match u32::from_be_bytes([e, f, g, h]) {
        SSL | GSS if length == HEAD => Some(Head::Encryption),
        _ => (HEAD..=LONGEST).contains(&length).then_some(Head::Message(length)),
    }
}

fn opening(message: Vec<u8>) -> Opening {
    match message[4..HEAD] == CANCEL.to_be_bytes() {
        true => Opening::Cancel { key: message[HEAD..].to_vec(), message },
        false => Opening::Startup(message),
    }
}

/// Reads a client's first message. Encryption is declined: whoever insists on it breaks off.
///
/// # Errors
/// When the client breaks off, or speaks something else.
pub(crate) async fn receive<C: AsyncRead + AsyncWrite + Unpin>(client: &mut C) -> io::Result<Opening> {
    // Each kind of encryption is asked for once at most.
    for _ in 0..3 {
        let mut bytes = [0; HEAD];
        client.read_exact(&mut bytes).await?;
        match head(bytes) {
            None => break,
            Some(Head::Encryption) => client.write_all(b"N").await?,
            Some(Head::Message(length)) => {
                let mut message = vec![0; length];
                message[..HEAD].copy_from_slice(&bytes);
                client.read_exact(&mut message[HEAD..]).await?;
                return Ok(opening(message));
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak PostgreSQL's protocol"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + rest.len()).expect("short");
        [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
    }

    async fn opened(bytes: &[u8]) -> (io::Result<Opening>, Vec<u8>) {
        let (mut client, mut near) = duplex(64 * 1024);
        client.write_all(bytes).await.expect("room");
        client.shutdown().await.expect("open");
        let opening = receive(&mut near).await;
        drop(near);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("what was answered");
        (opening, answer)
    }

    #[tokio::test]
    async fn encryption_is_declined_and_the_login_passed_on() {
        let login = packet(196_608, b"user\0app\0\0");
        let asked = [packet(GSS, b""), packet(SSL, b""), login.clone()].concat();
        let (opening, answer) = opened(&asked).await;
        assert_eq!((opening.expect("a login"), &answer[..]), (Opening::Startup(login), &b"NN"[..]));
    }

    #[tokio::test]
    async fn a_request_to_cancel_names_its_key() {
        let message = packet(CANCEL, &[0, 0, 0, 7, 1, 2, 3, 4]);
        let (opening, _) = opened(&message).await;
        assert_eq!(opening.expect("a request"), Opening::Cancel { key: vec![0, 0, 0, 7, 1, 2, 3, 4], message });
    }

    #[tokio::test]
    async fn what_is_no_opening_is_refused() {
        let endless = packet(SSL, b"").repeat(4);
        let huge = [&1_000_000_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes()].concat();
        for bytes in [&b"*1\r\n$4\r\nPING\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0], &huge, &endless, &b"\0\0"[..]] {
            assert!(opened(bytes).await.0.is_err(), "{bytes:?}");
        }
    }
}
