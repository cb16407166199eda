//! A worker's sockets: by the multiplexer's numbers, with what is known of each between two turns.

use super::mux::{ClientId, LinkId};
use rustix::event::epoll::{Event, EventData, EventFlags};
use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Whom an event of epoll concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Bell,
    Listener,
    Client(ClientId),
    Link(LinkId),
}

/// Slots that nobody has: they stand for what there is one of.
const BELL: u64 = u32::MAX as u64;
const LISTENER: u64 = BELL - 1;
/// The highest bit tells links from clients; the generation is below it.
const LINK: u64 = 1 << 63;

impl Token {
    pub(super) fn data(self) -> EventData {
        let pack = |slot: u32, generation: u32| u64::from(generation) << 32 | u64::from(slot);
        EventData::new_u64(match self {
            Token::Bell => BELL,
            Token::Listener => LISTENER,
            Token::Client(id) => pack(id.slot(), id.generation()),
            Token::Link(id) => LINK | pack(id.slot(), id.generation()),
        })
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves are taken apart")]
    pub(super) fn of(event: &Event) -> Self {
        let data = event.data.u64();
        let (slot, generation) = (data as u32, ((data & !LINK) >> 32) as u32);
        match data {
            BELL => Token::Bell,
            LISTENER => Token::Listener,
            _ if data & LINK != 0 => Token::Link(LinkId::from_parts(slot, generation)),
            _ => Token::Client(ClientId::from_parts(slot, generation)),
        }
    }
}

/// One for each slot, found only by the number that is in force: late events of a closed one find nothing.
#[derive(Debug)]
pub(super) struct Table<I, T>(Vec<Option<(I, T)>>);

/// A number of the multiplexer's.
pub(super) trait Number: Copy + Eq {
    fn place(self) -> usize;
}

impl Number for ClientId {
    fn place(self) -> usize {
        self.slot() as usize
    }
}

impl Number for LinkId {
    fn place(self) -> usize {
        self.slot() as usize
    }
}

impl<I, T> Default for Table<I, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<I: Number, T> Table<I, T> {
    pub(super) fn put(&mut self, id: I, value: T) {
        let place = id.place();
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        self.0[place] = Some((id, value));
    }

    pub(super) fn get(&mut self, id: I) -> Option<&mut T> {
        match self.0.get_mut(id.place()) {
            Some(Some((present, value))) if *present == id => Some(value),
            _ => None,
        }
    }

    pub(super) fn take(&mut self, id: I) -> Option<T> {
        self.get(id)?;
        self.0[id.place()].take().map(|(_, value)| value)
    }
}

/// A connected socket. Epoll tells of changes only, so what it told is kept until the system says that it is over.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    /// There may be something to read.
    readable: bool,
    /// The other side has ended or broken off: what can be read now is not followed by another event.
    ending: bool,
    /// Its end has been read.
    ended: bool,
    /// The system takes no more bytes for now.
    full: bool,
}

/// What a read has brought.
pub(super) enum Got {
    Bytes(usize),
    Nothing,
    End,
    Broken(io::Error),
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, readable: false, ending: false, ended: false, full: false }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Takes in what epoll tells. Gives whether more can be written than before.
    pub(super) fn note(&mut self, flags: EventFlags) -> bool {
        let over = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.ending |= flags.intersects(over);
        self.readable |= !self.ended && flags.intersects(EventFlags::IN | over);
        let was_full = self.full;
        self.full &= !flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
        was_full && !self.full
    }

    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Reads once.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Got {
        match (&self.stream).read(into) {
            Ok(0) => {
                (self.readable, self.ended) = (false, true);
                Got::End
            }
            Ok(n) => {
                // Less than there was room for is all there is: the next byte will be an event.
                self.readable = n == into.len() || self.ending;
                Got::Bytes(n)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Got::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Got::Nothing,
            Err(error) => Got::Broken(error),
        }
    }

    /// Writes what the system takes at once. An event tells when it takes more.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.full {
            return Ok(0);
        }
        match (&self.stream).write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.full = true;
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            outcome => outcome,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_way_through_epoll() {
        let (slot, generation) = (70_000, (1 << 31) - 1);
        let tokens = [
            Token::Bell,
            Token::Listener,
            Token::Client(ClientId::from_parts(0, 0)),
            Token::Client(ClientId::from_parts(slot, generation)),
            Token::Link(LinkId::from_parts(0, 0)),
            Token::Link(LinkId::from_parts(slot, generation)),
        ];
        for token in tokens {
            assert_eq!(Token::of(&Event { flags: EventFlags::IN, data: token.data() }), token);
        }
    }

    #[test]
    fn a_number_that_is_no_longer_in_force_finds_nothing() {
        let mut table = Table::default();
        let (old, new) = (ClientId::from_parts(3, 1), ClientId::from_parts(3, 2));
        table.put(old, "old");
        assert_eq!(table.get(old), Some(&mut "old"));
        assert_eq!(table.get(ClientId::from_parts(9, 1)), None);
        table.put(new, "new");
        assert_eq!(table.get(old), None);
        assert_eq!(table.take(old), None);
        assert_eq!((table.take(new), table.take(new)), (Some("new"), None));
    }
}
