//! Where a request or a reply ends. Bytes are looked at once, however they arrive: a half frame keeps its [`Progress`].
//!
//! Nested replies cost nothing: what is still to come is counted, not stacked, so that no depth can hurt and none has to
//! be refused. Streamed types (`$?`, `*?`) are malformed here: no server sends them.
//!
//! Lengths are read exactly as Redis reads them (no sign but `-`, no leading zero, no space) and every line end is
//! checked, so that a frame accepted here ends at the same byte for the server.

use std::fmt;

/// What one line without a length may have: Redis' limit for an inline request.
pub(crate) const INLINE_LIMIT: usize = 64 * 1024;

/// The most arguments of a request. What Redis allowed before 7.0, and far more than anybody sends.
pub(crate) const ARGUMENTS_LIMIT: i64 = 1024 * 1024;

/// The longest argument: the server's own limit (`proto-max-bulk-len`).
pub(crate) const ARGUMENT_LIMIT: i64 = 512 * 1024 * 1024;

/// The longest name of a command. A longer one would only make the server say that it does not know it.
pub(crate) const NAME_LIMIT: i64 = 64 * 1024;

/// A frame that is not whole and is going to be longer is not collected: it is passed on in pieces.
pub(crate) const COLLECT_LIMIT: usize = 1024 * 1024;

/// How far one frame has been looked at. The default is the start of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// What has been seen or is known to belong to the frame, from the start of the caller's bytes.
    at: usize,
    /// Values still to come, the present one included; 0 before the frame has begun.
    left: u32,
    next: Next,
}

/// What stands at [`Progress::at`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// The line that begins a value.
    #[default]
    Head,
    /// The line end behind a text whose length was known.
    TextEnd,
    /// The rest of a line that ends the value.
    Line,
}

/// Looks for the end of one client's requests, one at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestScan(Progress);

/// What the bytes of a client begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundRequest {
    /// A whole request of so many bytes: an array of texts, at least one.
    Whole(usize),
    /// A line of so many bytes, to be turned into such an array by [`super::inline::to_array`].
    Inline(usize),
    /// So many bytes that ask for nothing and get no answer (`*0`): to be skipped.
    Empty(usize),
    /// The request is not whole: to be asked again with all of its bytes and more.
    Half,
    /// The request is not whole and longer than [`COLLECT_LIMIT`], its name and first arguments are here: to be passed
    /// on in pieces by [`RequestScan::follow`], beginning with the same bytes.
    Big,
}

/// How much of the bytes at hand belongs to a frame that is passed on in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// To be passed on. What is left of the bytes has to be shown again, with more (it is a line that is not whole),
    /// or belongs to the next frame.
    pub(crate) len: usize,
    /// The frame ends with this piece.
    pub(crate) last: bool,
}

/// Looks for the end of one server's replies, one at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplyScan(Progress);

/// What the bytes of a server begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundReply {
    /// A whole reply or push of so many bytes, its attributes included.
    Whole(usize),
    /// Not whole: to be asked again with all of its bytes and more.
    Half,
    /// Not whole and longer than [`COLLECT_LIMIT`]: to be passed on in pieces by [`ReplyScan::follow`].
    Big,
}

/// Why bytes are no request or no reply. What follows them cannot be understood either.
///
/// The texts are those that Redis answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// The count of an array, a map, a set or a push.
    #[error("Protocol error: invalid multibulk length")]
    Count,
    /// The length of a text.
    #[error("Protocol error: invalid bulk length")]
    Length,
    /// An argument that does not say its length.
    #[error("Protocol error: expected '$', got '{}'", Shown(*.0))]
    Argument(u8),
    /// A text that does not end where its length says.
    #[error("Protocol error: expected the end of the line after a bulk string")]
    TextEnd,
    /// A line that does not end as one.
    #[error("Protocol error: expected CRLF at the end of a line")]
    LineEnd,
    /// An inline request of more than [`INLINE_LIMIT`].
    #[error("Protocol error: too big inline request")]
    TooLong,
    /// An inline request whose quotes do not match.
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    /// A NUL byte in an inline request: the server would read it as its end.
    #[error("Protocol error: NUL in an inline request")]
    Nul,
    /// A reply of a kind that does not exist.
    #[error("Protocol error: unknown kind of reply '{}'", Shown(*.0))]
    Kind(u8),
}

/// A byte as it may stand in an error's line.
struct Shown(u8);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl RequestScan {
    /// Looks for the end of the request that begins `bytes`. After [`FoundRequest::Half`] it goes on where it stopped:
    /// the same bytes have to come first.
    ///
    /// # Errors
    /// When the bytes are no request; the client is told so and closed.
    #[inline]
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<FoundRequest, Malformed> {
        if self.0.left == 0 {
            match self.begin(bytes)? {
                Begun::Half => return Ok(FoundRequest::Half),
                Begun::Empty(len) => return Ok(FoundRequest::Empty(len)),
                Begun::Open => {}
            }
        }
        if self.0.next == Next::Line {
            return self.inline(bytes);
        }
        if self.arguments(bytes)? {
            let len = self.0.at;
            self.0 = Progress::default();
            return Ok(FoundRequest::Whole(len));
        }
        Ok(if self.0.at > COLLECT_LIMIT { FoundRequest::Big } else { FoundRequest::Half })
    }

    /// Says how much of `bytes` belongs to the request for which [`FoundRequest::Big`] was said.
    ///
    /// # Errors
    /// When the bytes do not go on as a request.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<Piece, Malformed> {
        let last = self.arguments(bytes)?;
        Ok(self.0.piece(bytes, last))
    }

    /// Whether nothing of a request has been seen.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn is_fresh(&self) -> bool {
        self.0 == Progress::default()
    }

    /// How many bytes never have to be looked at again.
    #[cfg(test)]
    pub(super) fn seen(&self) -> usize {
        self.0.at
    }

    /// The array's count and the name's length, together: both are short, and looking at them again costs little.
    #[inline]
    fn begin(&mut self, bytes: &[u8]) -> Result<Begun, Malformed> {
        match bytes.first() {
            None => return Ok(Begun::Half),
            Some(b'*') => {}
            Some(_) => {
                self.0 = Progress { at: 0, left: 1, next: Next::Line };
                return Ok(Begun::Open);
            }
        }
        let Some((count, name)) = number(bytes, 1).ok_or(Malformed::Count)? else { return Ok(Begun::Half) };
        if count > ARGUMENTS_LIMIT {
            return Err(Malformed::Count);
        }
        if count <= 0 {
            return Ok(Begun::Empty(name));
        }
        let Some((len, text)) = argument(bytes, name, NAME_LIMIT)? else { return Ok(Begun::Half) };
        let left = u32::try_from(count).map_err(|_| Malformed::Count)?;
        self.0 = Progress { at: text + len, left, next: Next::TextEnd };
        Ok(Begun::Open)
    }

    /// Goes on through the arguments; true at the end of the last.
    #[inline]
    fn arguments(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        let Progress { mut at, mut left, mut next } = self.0;
        let whole = loop {
            if next == Next::TextEnd {
                let Some(end) = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>) else { break false };
                if end != b"\r\n" {
                    return Err(Malformed::TextEnd);
                }
                at += 2;
                left -= 1;
                next = Next::Head;
            }
            if left == 0 {
                break true;
            }
            let Some((len, text)) = argument(bytes, at, ARGUMENT_LIMIT)? else { break false };
            at = text + len;
            next = Next::TextEnd;
        };
        self.0 = Progress { at, left, next };
        Ok(whole)
    }

    fn inline(&mut self, bytes: &[u8]) -> Result<FoundRequest, Malformed> {
        let seen = self.0.at;
        let found = memchr::memchr(b'\n', bytes.get(seen..).unwrap_or_default());
        if found.map_or(bytes.len(), |end| seen + end) > INLINE_LIMIT {
            return Err(Malformed::TooLong);
        }
        let Some(end) = found else {
            self.0.at = bytes.len();
            return Ok(FoundRequest::Half);
        };
        self.0 = Progress::default();
        Ok(FoundRequest::Inline(seen + end + 1))
    }
}

/// What the first lines of a request say.
enum Begun {
    Half,
    Empty(usize),
    Open,
}

impl ReplyScan {
    /// Looks for the end of the reply that begins `bytes`. After [`FoundReply::Half`] it goes on where it stopped: the
    /// same bytes have to come first.
    ///
    /// # Errors
    /// When the bytes are no reply; the connection is of no use any more.
    #[inline]
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<FoundReply, Malformed> {
        if self.values(bytes)? {
            let len = self.0.at;
            self.0 = Progress::default();
            return Ok(FoundReply::Whole(len));
        }
        Ok(if self.0.at > COLLECT_LIMIT { FoundReply::Big } else { FoundReply::Half })
    }

    /// Says how much of `bytes` belongs to the reply for which [`FoundReply::Big`] was said.
    ///
    /// # Errors
    /// When the bytes do not go on as a reply.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<Piece, Malformed> {
        let last = self.values(bytes)?;
        Ok(self.0.piece(bytes, last))
    }

    /// Goes on through the values; true at the end of the last.
    #[inline]
    fn values(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        let Progress { mut at, mut left, mut next } = self.0;
        if left == 0 {
            left = 1;
        }
        let whole = loop {
            match next {
                Next::Head => {
                    let Some(&kind) = bytes.get(at) else { break false };
                    match kind {
                        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {
                            at += 1;
                            next = Next::Line;
                        }
                        b'$' | b'!' | b'=' => match text_length(bytes, at)? {
                            None => break false,
                            Some((None, end)) => {
                                at = end;
                                left -= 1;
                            }
                            Some((Some(len), text)) => {
                                at = text.checked_add(len).ok_or(Malformed::Length)?;
                                next = Next::TextEnd;
                            }
                        },
                        _ => {
                            let Some((more, items)) = count(kind, bytes, at)? else { break false };
                            // An attribute is no value of its own: the value that it belongs to is still to come.
                            let done = u32::from(kind != b'|');
                            left = (left - done).checked_add(more).ok_or(Malformed::Count)?;
                            at = items;
                        }
                    }
                }
                Next::TextEnd => {
                    let Some(end) = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>) else { break false };
                    if end != b"\r\n" {
                        return Err(Malformed::TextEnd);
                    }
                    at += 2;
                    left -= 1;
                    next = Next::Head;
                }
                Next::Line => {
                    let Some(rest) = bytes.get(at..) else { break false };
                    let Some(end) = memchr::memchr(b'\r', rest) else {
                        at = bytes.len();
                        break false;
                    };
                    at += end;
                    match bytes.get(at + 1) {
                        None => break false,
                        Some(b'\n') => at += 2,
                        Some(_) => return Err(Malformed::LineEnd),
                    }
                    left -= 1;
                    next = Next::Head;
                }
            }
            if left == 0 {
                break true;
            }
        };
        self.0 = Progress { at, left, next };
        Ok(whole)
    }
}

impl Progress {
    /// What of `bytes` may be passed on; the count begins anew behind it.
    fn piece(&mut self, bytes: &[u8], last: bool) -> Piece {
        let len = self.at.min(bytes.len());
        self.at -= len;
        if last {
            *self = Self::default();
        }
        Piece { len, last }
    }
}

/// The length of the argument whose line begins at `at`, and where its text begins; nothing while the line is not whole.
#[inline]
fn argument(bytes: &[u8], at: usize, limit: i64) -> Result<Option<(usize, usize)>, Malformed> {
    match bytes.get(at) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(&other) => return Err(Malformed::Argument(other)),
    }
    let Some((len, text)) = number(bytes, at + 1).ok_or(Malformed::Length)? else { return Ok(None) };
    if len > limit {
        return Err(Malformed::Length);
    }
    let len = usize::try_from(len).map_err(|_| Malformed::Length)?;
    Ok(Some((len, text)))
}

/// The length of a reply's text (none: the null of RESP2) and where it begins; nothing while the line is not whole.
#[inline]
fn text_length(bytes: &[u8], at: usize) -> Result<Option<(Option<usize>, usize)>, Malformed> {
    let Some((len, text)) = number(bytes, at + 1).ok_or(Malformed::Length)? else { return Ok(None) };
    match usize::try_from(len) {
        Ok(len) => Ok(Some((Some(len), text))),
        Err(_) if len == -1 && bytes.get(at) == Some(&b'$') => Ok(Some((None, text))),
        Err(_) => Err(Malformed::Length),
    }
}

/// How many values a reply of this kind holds, and where they begin; nothing while the line is not whole.
fn count(kind: u8, bytes: &[u8], at: usize) -> Result<Option<(u32, usize)>, Malformed> {
    let each = match kind {
        b'*' | b'~' | b'>' => 1,
        b'%' | b'|' => 2,
        other => return Err(Malformed::Kind(other)),
    };
    let Some((count, items)) = number(bytes, at + 1).ok_or(Malformed::Count)? else { return Ok(None) };
    if count == -1 && kind == b'*' {
        return Ok(Some((0, items)));
    }
    let count = u32::try_from(count).ok().and_then(|count| count.checked_mul(each)).ok_or(Malformed::Count)?;
    Ok(Some((count, items)))
}

/// The number between `at` and the end of its line, and where the next line begins. The outer `None` is a line that is
/// no number, the inner one a line that is not whole.
#[inline]
pub(super) fn number(bytes: &[u8], at: usize) -> Option<Option<(i64, usize)>> {
    let negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let mut end = first;
    let mut value = 0_i64;
    loop {
        match bytes.get(end) {
            None => return Some(None),
            Some(digit @ b'0'..=b'9') => {
                value = value.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
                end += 1;
            }
            Some(b'\r') if end > first => break,
            Some(_) => return None,
        }
        // A zero that begins a number is the whole number.
        if bytes.get(first) == Some(&b'0') && (negative || end - first > 1) {
            return None;
        }
    }
    match bytes.get(end + 1) {
        None => Some(None),
        Some(b'\n') => Some(Some((if negative { -value } else { value }, end + 2))),
        Some(_) => None,
    }
}
