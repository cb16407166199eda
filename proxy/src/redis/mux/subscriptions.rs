//! What a client is subscribed to, as far as the server has confirmed it.

use crate::redis::commands::PubSub;
use std::collections::BTreeSet;

/// Names by their kind.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    channels: BTreeSet<Box<[u8]>>,
    patterns: BTreeSet<Box<[u8]>>,
    shards: BTreeSet<Box<[u8]>>,
}

/// What a frame is to a client that is or was subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    /// Something that was published.
    Message,
    /// A subscription began or ended.
    Confirmation(PubSub),
}

impl Frame {
    /// By the name that begins it.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"message" | b"pmessage" | b"smessage" => Self::Message,
            b"subscribe" => Self::Confirmation(PubSub::Subscribe),
            b"unsubscribe" => Self::Confirmation(PubSub::Unsubscribe),
            b"psubscribe" => Self::Confirmation(PubSub::Psubscribe),
            b"punsubscribe" => Self::Confirmation(PubSub::Punsubscribe),
            b"ssubscribe" => Self::Confirmation(PubSub::Ssubscribe),
            b"sunsubscribe" => Self::Confirmation(PubSub::Sunsubscribe),
            _ => return None,
        })
    }
}

impl Subscriptions {
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shards.is_empty()
    }

    /// How many confirmations a request brings that names so many. One that names none ends all of its kind, and is
    /// answered even if there is none.
    pub(super) fn confirmations(&self, verb: PubSub, named: usize) -> usize {
        if named > 0 {
            return named;
        }
        let all = match verb {
            PubSub::Subscribe | PubSub::Unsubscribe => &self.channels,
            PubSub::Psubscribe | PubSub::Punsubscribe => &self.patterns,
            PubSub::Ssubscribe | PubSub::Sunsubscribe => &self.shards,
        };
        all.len().max(1)
    }

    /// The server has confirmed.
    pub(super) fn confirm(&mut self, verb: PubSub, name: Option<&[u8]>) {
        let Some(name) = name else { return };
        match verb {
            PubSub::Subscribe => self.channels.insert(name.into()),
            PubSub::Unsubscribe => self.channels.remove(name),
            PubSub::Psubscribe => self.patterns.insert(name.into()),
            PubSub::Punsubscribe => self.patterns.remove(name),
            PubSub::Ssubscribe => self.shards.insert(name.into()),
            PubSub::Sunsubscribe => self.shards.remove(name),
        };
    }

    /// The requests that bring all of them back, with how many confirmations they bring.
    pub(super) fn again(&self) -> (Vec<Vec<&[u8]>>, usize) {
        let kinds: [(&[u8], _); 3] =
            [(b"SUBSCRIBE", &self.channels), (b"PSUBSCRIBE", &self.patterns), (b"SSUBSCRIBE", &self.shards)];
        let requests = kinds.into_iter().filter(|(_, names)| !names.is_empty());
        let requests = requests.map(|(verb, names)| std::iter::once(verb).chain(names.iter().map(|n| &**n)).collect());
        (requests.collect(), self.channels.len() + self.patterns.len() + self.shards.len())
    }
}
