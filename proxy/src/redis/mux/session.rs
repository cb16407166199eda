//! What a client has said about itself, and the answers that the proxy gives in the server's place.

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// As `CLIENT SETNAME` has it.
    pub(super) name: Vec<u8>,
}

impl Session {
    /// Whether requests may be sent on as they are.
    pub(super) fn is_plain(&self) -> bool {
        true
    }
}
