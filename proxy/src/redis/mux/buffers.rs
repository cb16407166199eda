//! Spare buffers: clients have one only while something stands in it, and a busy worker does not ask the allocator for
//! each request.

/// Few, since a worker fills and empties them in one turn.
const KEPT: usize = 64;

/// A larger one is given back to the system: an idle proxy is to be small.
const KEPT_BYTES: usize = 16 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// An empty buffer.
    #[inline]
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes back a buffer that is not needed now.
    #[inline]
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= KEPT_BYTES && self.0.len() < KEPT {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}
