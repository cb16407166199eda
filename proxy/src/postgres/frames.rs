//! What a PostgreSQL server says, read just enough to know what must not be passed on.
//!
//! Source: the PostgreSQL manual, "Frontend/Backend Protocol", Message Formats. Every message but a client's first is one
//! byte of kind, four of length (which count themselves) and the body.

/// Messages that are looked into are short; a longer one of such a kind is none of those that matter.
const LONGEST: usize = 4096;

const HEADER: usize = 5;

/// The server's function that waits for a synchronous standby. A notice names it whatever language its text is in, and no
/// user's `RAISE` can name another than its own.
const WAIT: &[u8] = b"SyncRepWaitForLSN";

/// Something that a server said and that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// A commit stopped waiting for the standby: a success that follows is none.
    Unreplicated,
    /// Whether it is a standby (`in_hot_standby`; PostgreSQL 14 and later say so at login and when it changes).
    Standby(bool),
    /// What a request to cancel this connection's query would carry (`BackendKeyData`).
    Key(Vec<u8>),
}

/// Finds messages in a stream of bytes that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: [u8; HEADER],
    /// How much of the header has come.
    has: usize,
    /// How much of the body is missing.
    missing: usize,
    /// The body so far, of a message that is looked into.
    body: Vec<u8>,
}

impl Frames {
    /// Reads on, and tells what matters in what has become whole.
    ///
    /// # Errors
    /// When these are no messages of a PostgreSQL server.
    pub(crate) fn read(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Word)) -> Result<(), NotPostgres> {
        loop {
            if self.has < HEADER {
                let (now, rest) = bytes.split_at(bytes.len().min(HEADER - self.has));
                self.header[self.has..self.has + now.len()].copy_from_slice(now);
                self.has += now.len();
                bytes = rest;
                if self.has < HEADER {
                    return Ok(());
                }
                let length = u32::from_be_bytes([self.header[1], self.header[2], self.header[3], self.header[4]]);
                self.missing = usize::try_from(length).unwrap_or(usize::MAX).checked_sub(4).ok_or(NotPostgres)?;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(self.missing));
            self.missing -= now.len();
            if matters(self.header[0]) && self.body.len() + now.len() + self.missing <= LONGEST {
                self.body.extend_from_slice(now);
            }
            bytes = rest;
            if self.missing > 0 {
                return Ok(());
            }
            if let Some(word) = word(self.header[0], &self.body) {
                tell(word);
            }
            // Given back: an idle connection owns no buffer.
            (self.has, self.body) = (0, Vec::new());
        }
    }
}

/// The bytes are no messages of a PostgreSQL server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the database does not speak PostgreSQL's protocol")]
pub(crate) struct NotPostgres;

fn matters(kind: u8) -> bool {
    matches!(kind, b'N' | b'S' | b'K')
}

fn word(kind: u8, body: &[u8]) -> Option<Word> {
    match kind {
        b'N' => fields(body).any(|(field, value)| field == b'R' && value == WAIT).then_some(Word::Unreplicated),
        b'S' => {
            let mut texts = body.split(|byte| *byte == 0);
            let standby = texts.next()? == b"in_hot_standby";
            standby.then(|| Word::Standby(texts.next() == Some(b"on")))
        }
        b'K' => (!body.is_empty()).then(|| Word::Key(body.to_vec())),
        _ => None,
    }
}

/// The fields of a notice: a byte that says which, and a text.
fn fields(body: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    body.split(|byte| *byte == 0).filter_map(|field| field.split_first().map(|(kind, value)| (*kind, value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::message;

    fn told(pieces: &[&[u8]]) -> Result<Vec<Word>, NotPostgres> {
        let (mut frames, mut words) = (Frames::default(), Vec::new());
        for piece in pieces {
            frames.read(piece, |word| words.push(word))?;
        }
        Ok(words)
    }

    /// As a PostgreSQL 15 sends it, in the French of its `lc_messages`.
    fn warning(routine: &str) -> Vec<u8> {
        let text = format!("SATTENTION\0VWARNING\0C01000\0Mannulation de l'attente\0Fsyncrep.c\0L311\0R{routine}\0\0");
        message(b'N', text.as_bytes())
    }

    #[test]
    fn a_cancelled_wait_is_found_wherever_the_stream_is_cut() {
        let row = message(b'D', &[0; 300]);
        let stream = [&row[..], &warning("SyncRepWaitForLSN"), &message(b'C', b"INSERT 0 1\0")].concat();
        assert_eq!(told(&[&stream]), Ok(vec![Word::Unreplicated]));
        for cut in 0..stream.len() {
            let (one, two) = stream.split_at(cut);
            assert_eq!(told(&[one, two]), Ok(vec![Word::Unreplicated]), "cut at {cut}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(told(&single), Ok(vec![Word::Unreplicated]));
    }

    #[test]
    fn other_notices_and_rows_that_look_like_one_are_passed_on() {
        let row = message(b'D', &warning("SyncRepWaitForLSN"));
        let said = message(b'N', b"SNOTICE\0MSyncRepWaitForLSN\0Rexec_stmt_raise\0\0");
        let long = message(b'N', &[&[b'M'; LONGEST][..], b"\0RSyncRepWaitForLSN\0\0"].concat());
        assert_eq!(told(&[&row, &said, &warning("StartupXLOG"), &long]), Ok(vec![]));
    }

    #[test]
    fn the_words_of_a_login() {
        let login = [
            message(b'R', &[0, 0, 0, 0]),
            message(b'S', b"in_hot_standby\0on\0"),
            message(b'S', b"server_version\x0015.18\0"),
            message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]),
            message(b'Z', b"I"),
            message(b'S', b"in_hot_standby\0off\0"),
        ];
        let words = [Word::Standby(true), Word::Key(vec![0, 0, 0, 7, 1, 2, 3, 4]), Word::Standby(false)];
        assert_eq!(told(&[&login.concat()]), Ok(words.to_vec()));
    }

    #[test]
    fn a_length_that_cannot_be_is_told() {
        assert_eq!(told(&[b"N\0\0\0\x03"]), Err(NotPostgres));
    }
}
