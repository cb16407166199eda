//! What goes to one client: bytes in the order of their requests, and how far they may leave.
//!
//! One buffer with marks: `sent <= released <= len`. What is behind `released` waits for a barrier. `covered` is how far
//! the barrier in flight reaches, `need` the end of the last byte that needs one: what follows a withheld reply waits
//! with it, and no longer.

use super::buffers::Buffers;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    sent: usize,
    released: usize,
    covered: usize,
    need: usize,
}

impl Output {
    /// What may be sent now.
    #[inline]
    pub(super) fn ready(&self) -> &[u8] {
        self.bytes.get(self.sent..self.released).unwrap_or_default()
    }

    /// All that is not sent yet, withheld or not.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Whether something waits for a barrier.
    #[inline]
    pub(super) fn is_withheld(&self) -> bool {
        self.need > self.released
    }

    /// Whether something waits that the barrier in flight does not reach.
    #[inline]
    pub(super) fn needs_barrier(&self) -> bool {
        self.need > self.covered && self.is_withheld()
    }

    /// Adds what may leave as soon as all before it may.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8], spare: &mut Buffers) {
        let withheld = self.is_withheld();
        self.append(bytes, spare);
        if !withheld {
            self.released = self.bytes.len();
        }
    }

    /// Adds what needs a barrier.
    #[inline]
    pub(super) fn push_withheld(&mut self, bytes: &[u8], spare: &mut Buffers) {
        self.append(bytes, spare);
        self.need = self.bytes.len();
    }

    /// A barrier is about to be sent: it covers all that has been read.
    #[inline]
    pub(super) fn cover(&mut self) {
        self.covered = self.bytes.len();
    }

    /// The barrier has been passed.
    #[inline]
    pub(super) fn release(&mut self) {
        self.released = if self.need <= self.covered { self.bytes.len() } else { self.covered.max(self.released) };
    }

    /// So many bytes are sent. An emptied buffer is given back.
    #[inline]
    pub(super) fn advance(&mut self, len: usize, spare: &mut Buffers) {
        self.sent = (self.sent + len).min(self.released);
        if self.is_empty() {
            spare.give(std::mem::take(&mut self.bytes));
            (self.sent, self.released, self.covered, self.need) = (0, 0, 0, 0);
        } else if self.sent > MOVED_FROM && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            for mark in [&mut self.released, &mut self.covered, &mut self.need] {
                *mark = mark.saturating_sub(self.sent);
            }
            self.sent = 0;
        }
    }

    #[inline]
    fn append(&mut self, bytes: &[u8], spare: &mut Buffers) {
        if self.bytes.capacity() == 0 {
            self.bytes = spare.take();
        }
        self.bytes.extend_from_slice(bytes);
    }
}

/// The sent part of a buffer is dropped from here on, when it is more than half: each byte is moved at most once.
const MOVED_FROM: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(output: &Output) -> &str {
        std::str::from_utf8(output.ready()).expect("tests write text")
    }

    #[test]
    fn what_follows_a_withheld_reply_waits_with_it_and_no_longer() {
        let (mut output, mut spare) = (Output::default(), Buffers::default());
        output.push(b"a", &mut spare);
        output.push_withheld(b"W", &mut spare);
        output.push(b"b", &mut spare);
        assert_eq!((text(&output), output.needs_barrier()), ("a", true));
        output.cover();
        assert!(!output.needs_barrier());
        // Read after the barrier was sent, and needs none: it leaves with what is before it.
        output.push(b"c", &mut spare);
        output.release();
        assert_eq!((text(&output), output.is_withheld()), ("aWbc", false));
        output.push(b"d", &mut spare);
        assert_eq!(text(&output), "aWbcd");
    }

    /// Guards this: a barrier says nothing of what was read after it was sent.
    #[test]
    fn what_is_read_after_the_barrier_was_sent_waits_for_the_next() {
        let (mut output, mut spare) = (Output::default(), Buffers::default());
        output.push_withheld(b"V", &mut spare);
        output.cover();
        output.push(b"a", &mut spare);
        output.push_withheld(b"W", &mut spare);
        assert!(output.needs_barrier());
        output.release();
        assert_eq!((text(&output), output.is_withheld()), ("V", true));
        output.advance(1, &mut spare);
        output.cover();
        output.release();
        assert_eq!(text(&output), "aW");
    }

    #[test]
    fn marks_survive_the_moving_of_a_long_buffer() {
        let (mut output, mut spare) = (Output::default(), Buffers::default());
        output.push(&vec![b'x'; MOVED_FROM + 2], &mut spare);
        output.push_withheld(b"W", &mut spare);
        output.cover();
        output.push_withheld(b"V", &mut spare);
        output.advance(MOVED_FROM + 1, &mut spare);
        assert_eq!((text(&output), output.len()), ("x", 3));
        output.release();
        assert_eq!((text(&output), output.needs_barrier()), ("xW", true));
        output.cover();
        output.release();
        output.advance(3, &mut spare);
        assert!(output.is_empty());
        assert_eq!(output.bytes.capacity(), 0, "nothing is kept by an idle client");
    }
}
