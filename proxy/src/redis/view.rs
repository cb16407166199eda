//! Looks into requests and replies whose end was found: no copies, no allocation.

use super::scan::{self, FoundReply, ReplyScan};

/// The bytes of a request: an array of texts. It may be the beginning of one that is passed on in pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a>(&'a [u8]);

impl<'a> Request<'a> {
    /// A request that [`scan::RequestScan`] found whole or big.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many arguments it has, its name included.
    pub(crate) fn count(self) -> usize {
        match scan::number(self.0, 1) {
            Some(Some((count, _))) => usize::try_from(count).unwrap_or(0),
            _ => 0,
        }
    }

    /// The command's name as the client wrote it.
    #[inline]
    pub(crate) fn name(self) -> &'a [u8] {
        self.arguments().next().unwrap_or_default()
    }

    /// The name and all arguments; of a request that is not whole only those that are here.
    #[inline]
    pub(crate) fn arguments(self) -> Arguments<'a> {
        let at = match scan::number(self.0, 1) {
            Some(Some((_, at))) => at,
            _ => self.0.len(),
        };
        Arguments { bytes: self.0, at }
    }
}

/// Goes through the arguments of a [`Request`].
#[derive(Clone, Debug)]
pub(crate) struct Arguments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, text) = scan::number(self.bytes, self.at + 1)??;
        let end = text.checked_add(usize::try_from(len).ok()?)?;
        let argument = self.bytes.get(text..end)?;
        self.at = end + 2;
        Some(argument)
    }
}

/// The bytes of one reply or push, or of a value inside one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a>(&'a [u8]);

/// A message or a confirmation of the SUBSCRIBE family: a push in RESP3, in RESP2 an array like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published<'a> {
    /// `message`, `subscribe`, `punsubscribe`, …
    pub(crate) name: &'a [u8],
    /// The channel or pattern; none when there was nothing to unsubscribe.
    pub(crate) channel: Option<&'a [u8]>,
    /// How many subscriptions are left, in confirmations.
    pub(crate) count: Option<i64>,
}

impl<'a> Reply<'a> {
    /// A reply that [`ReplyScan`] found whole. Attributes before it are left out.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        if bytes.first() != Some(&b'|') {
            return Self(bytes);
        }
        Self(behind_attributes(bytes))
    }

    /// The byte that says its kind.
    #[inline]
    pub(crate) fn kind(self) -> u8 {
        self.0.first().copied().unwrap_or_default()
    }

    /// Whether it is an error of either form.
    #[inline]
    pub(crate) fn is_error(self) -> bool {
        matches!(self.kind(), b'-' | b'!')
    }

    /// Whether it is sent without having been asked for (RESP3).
    #[inline]
    pub(crate) fn is_push(self) -> bool {
        self.kind() == b'>'
    }

    /// Whether it is the null of either protocol.
    pub(crate) fn is_null(self) -> bool {
        self.kind() == b'_' || self.0 == b"$-1\r\n" || self.0 == b"*-1\r\n"
    }

    /// The value of an integer.
    pub(crate) fn integer(self) -> Option<i64> {
        match self.kind() {
            b':' => std::str::from_utf8(self.text()?).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// What a reply of one value says: a line without its kind, a text without its length. None for a null and for what
    /// holds other values. A verbatim text begins with its format (`txt:`).
    pub(crate) fn text(self) -> Option<&'a [u8]> {
        match self.kind() {
            b'+' | b'-' | b':' | b'#' | b',' | b'(' => self.0.get(1..self.0.len().checked_sub(2)?),
            b'$' | b'!' | b'=' => {
                let (len, text) = scan::number(self.0, 1)??;
                self.0.get(text..text.checked_add(usize::try_from(len).ok()?)?)
            }
            _ => None,
        }
    }

    /// The values it holds, of a map keys and values in turn; nothing for a reply of one value.
    pub(crate) fn items(self) -> Items<'a> {
        let at = match self.kind() {
            b'*' | b'~' | b'>' | b'%' => scan::number(self.0, 1).flatten().map(|(_, at)| at),
            _ => None,
        };
        Items { bytes: at.and_then(|at| self.0.get(at..)).unwrap_or_default() }
    }

    /// What it tells a subscribed client. In RESP2 any array that begins with a text passes for it: only for a
    /// connection that is subscribed.
    pub(crate) fn published(self) -> Option<Published<'a>> {
        if !matches!(self.kind(), b'*' | b'>') {
            return None;
        }
        let mut items = self.items();
        let name = items.next()?.text()?;
        let channel = items.next()?.text();
        Some(Published { name, channel, count: items.last().and_then(Reply::integer) })
    }
}

/// Goes through the values that a [`Reply`] holds.
#[derive(Clone, Debug)]
pub(crate) struct Items<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        let (item, rest) = first_value(self.bytes)?;
        self.bytes = rest;
        Some(Reply::new(item))
    }
}

fn first_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match ReplyScan::default().scan(bytes) {
        Ok(FoundReply::Whole(len)) => bytes.split_at_checked(len),
        _ => None,
    }
}

/// An attribute is a map of its own before the value: looked at as one, it tells where the value begins.
fn behind_attributes(mut bytes: &[u8]) -> &[u8] {
    while let [b'|', ..] = bytes {
        let Some(Some((pairs, mut at))) = scan::number(bytes, 1) else { break };
        for _ in 0..pairs.saturating_mul(2) {
            let Some((item, _)) = bytes.get(at..).and_then(first_value) else { return bytes };
            at += item.len();
        }
        bytes = &bytes[at..];
    }
    bytes
}
