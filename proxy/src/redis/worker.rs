//! A worker: a thread that waits for sockets, lets the multiplexer say what follows, and does it.
//!
//! One turn: wait once for many events; read each socket that has something once, into one buffer for all; then flush
//! the multiplexer, which has by now put together what goes to each link and each client; then write each of them
//! once. A socket that takes no more is written to when epoll says so: nobody waits for a slow client.

use super::Redis;
use super::course::Course;
use super::dial::Dial;
use super::mailbox::{Dialled, Mailbox};
use super::mux::{ClientId, Event, LinkId, Mux, Settings};
use super::sockets::{Got, Socket, Table, Token};
use super::tally::Tally;
use crate::counters::count;
use crate::group::Group;
use crate::listen::{ACCEPT_PAUSE, concerns_one_client};
use crate::quiet::Voice;
use crate::routes::Endpoint;
use config::ListenerRole;
use election::Millis;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::SockRef;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, warn};

/// Events of one wait: what is left over comes with the next.
const EVENTS: usize = 512;

/// Read at once from one socket. Measured: half or twice of it changes nothing.
const SCRATCH_BYTES: usize = 64 * 1024;

/// So many turns in a row with one event each, none of them waited for longer than [`BRISK_WAIT`]: one client alone, whose
/// next bytes are about to come.
const BRISK_TURNS: u32 = 4;

/// To sleep and be woken costs as much as this, and so the time of a lone client's request twice over. Under more than
/// one client there is always something to do, and an idle proxy stays asleep.
const BRISK_WAIT: Duration = Duration::from_micros(60);

/// Clients let in within one turn, so that a rush does not keep the present ones waiting.
const ACCEPTS: usize = 256;

/// Changes only, told once for all that a socket is ever asked.
const EDGES: EventFlags = EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// What outlives a worker that has to start again.
#[derive(Debug)]
pub(super) struct Site {
    redis: Arc<Redis>,
    epoll: OwnedFd,
    /// Gone once no more clients are let in.
    listener: Option<TcpListener>,
    mailbox: Arc<Mailbox>,
    courses: watch::Receiver<Course>,
    runtime: Handle,
    clients: TaskTracker,
}

impl Site {
    /// # Errors
    /// When the system grants no epoll.
    pub(super) fn new(
        redis: Arc<Redis>,
        listener: TcpListener,
        mailbox: Arc<Mailbox>,
        clients: TaskTracker,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, mailbox.bell(), Token::Bell.data(), EventFlags::IN | EventFlags::ET)?;
        epoll::add(&epoll, &listener, Token::Listener.data(), EventFlags::IN | EventFlags::ET)?;
        let courses = redis.group.courses(redis.role);
        Ok(Self { redis, epoll, listener: Some(listener), mailbox, courses, runtime: Handle::current(), clients })
    }
}

pub(super) struct Worker<'s> {
    site: &'s mut Site,
    mux: Mux,
    clients: Table<ClientId, Client>,
    links: Table<LinkId, Link>,
    /// Whom the last turn has left with more to read.
    again: Vec<Token>,
    scratch: Box<[u8]>,
    start: Instant,
    /// The record obeyed.
    course: Course,
    /// What witnesses are told; a reader's worker has no say in a switchover.
    voice: Option<Voice>,
    tally: Tally,
    /// Accepting has failed and is tried again then.
    accept_at: Option<Millis>,
    /// It was told that accepting fails, and has not succeeded since.
    told: bool,
    /// Brisk turns in a row.
    brisk: u32,
}

#[derive(Debug)]
struct Client {
    socket: Socket,
    _present: Present,
}

/// A client that is counted for as long as this lives.
#[derive(Debug)]
struct Present {
    group: Arc<Group>,
    _token: TaskTrackerToken,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.group.counters.open.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A link and the epoch of its master, whose bytes bear witness; a replica's do not.
#[derive(Debug)]
struct Link {
    epoch: Option<u64>,
    state: LinkState,
}

#[derive(Debug)]
enum LinkState {
    Dialling { _dial: Dial },
    Connected(Socket),
}

impl Link {
    fn socket(&mut self) -> Option<&mut Socket> {
        match &mut self.state {
            LinkState::Dialling { .. } => None,
            LinkState::Connected(socket) => Some(socket),
        }
    }
}

impl<'s> Worker<'s> {
    pub(super) fn new(site: &'s mut Site) -> Self {
        let redis = &site.redis;
        let settings = Settings {
            group: redis.group.name.clone(),
            hold: Millis(u64::try_from(redis.hold.as_millis()).unwrap_or(u64::MAX)),
            account: redis.account.clone(),
            role: redis.role,
            name: redis.proxy.clone(),
        };
        let voice = (redis.role == ListenerRole::Master).then(|| redis.group.quiet.enlist());
        let tally = redis.group.tallies.enlist();
        // The first turn adopts what there is, and hears what was ordered before.
        site.courses.mark_changed();
        site.mailbox.ring();
        Self {
            site,
            mux: Mux::new(settings),
            clients: Table::default(),
            links: Table::default(),
            again: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            start: Instant::now(),
            course: Course::default(),
            voice,
            tally,
            accept_at: None,
            told: false,
            brisk: 0,
        }
    }

    /// Works until it is told to end.
    ///
    /// # Errors
    /// When the system refuses to wait.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        while !self.site.mailbox.is_ended() {
            self.wait(&mut events)?;
            self.turn(&events);
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        events.clear();
        let limit = self.limit();
        let start = Instant::now();
        while self.brisk >= BRISK_TURNS && limit != Some(0) && events.is_empty() {
            if start.elapsed() > BRISK_WAIT {
                self.brisk = 0;
            }
            self.look(events, Some(0))?;
            // Whoever is to send them may need this core.
            thread::yield_now();
        }
        if events.is_empty() {
            self.look(events, limit)?;
        }
        let brisk = events.len() == 1 && start.elapsed() <= BRISK_WAIT;
        self.brisk = if brisk { self.brisk.saturating_add(1) } else { 0 };
        Ok(())
    }

    /// Waits for events, at most so many milliseconds.
    fn look(&self, events: &mut Vec<epoll::Event>, limit: Option<u64>) -> io::Result<()> {
        let limit = limit.map(|ms| Timespec::try_from(Duration::from_millis(ms)).unwrap_or_default());
        match epoll::wait(&self.site.epoll, rustix::buffer::spare_capacity(events), limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Milliseconds until there is something to do even if nothing happens.
    fn limit(&self) -> Option<u64> {
        if !self.again.is_empty() {
            return Some(0);
        }
        let next = match (self.mux.deadline(), self.accept_at) {
            (Some(a), Some(b)) => a.min(b),
            (one, other) => one.or(other)?,
        };
        Some(next.since(self.now()))
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn turn(&mut self, events: &[epoll::Event]) {
        let now = self.now();
        // The fence comes first: once a higher epoch is known, not one more byte of the old one is carried.
        if self.site.courses.has_changed().unwrap_or(false) {
            self.adopt(now);
        }
        let again = std::mem::take(&mut self.again);
        for event in events {
            self.arrived(event, now);
        }
        for token in again {
            self.resume(token, now);
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        if self.mux.deadline().is_some_and(|at| at <= now) {
            self.mux.tick(now);
        }
        self.mux.flush(now);
        while let Some(event) = self.mux.next_event() {
            self.carry_out(event, now);
        }
        self.report();
    }

    fn adopt(&mut self, now: Millis) {
        let course = self.site.courses.borrow_and_update().clone();
        if let Some(voice) = &mut self.voice {
            voice.say(None);
        }
        self.mux.set_heading(course.heading.clone(), now);
        self.course = course;
    }

    /// Tells the rest of the proxy how things stand.
    fn report(&mut self) {
        if let Some(voice) = &mut self.voice {
            let quiet = self.course.heading.held && self.mux.is_quiet();
            voice.say(self.course.stamp.filter(|_| quiet));
        }
        self.tally.set(self.mux.counts());
    }

    fn arrived(&mut self, event: &epoll::Event, now: Millis) {
        let flags = event.flags;
        match Token::of(event) {
            Token::Bell => self.open_mail(now),
            Token::Listener => self.accept(now),
            Token::Client(id) => {
                let Some(client) = self.clients.get(id) else { return };
                let writable = client.socket.note(flags);
                if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
                    // Nobody is there to be answered: what waits must not be carried out any more.
                    return self.client_broke(id, now);
                }
                self.read_client(id, now);
                if writable {
                    self.write_client(id, now);
                }
            }
            Token::Link(id) => {
                let Some(socket) = self.links.get(id).and_then(Link::socket) else { return };
                let writable = socket.note(flags);
                self.read_link(id, now);
                if writable {
                    self.write_link(id, now);
                }
            }
        }
    }

    /// Goes on with what the last turn has left.
    fn resume(&mut self, token: Token, now: Millis) {
        match token {
            Token::Bell => {}
            Token::Listener => self.accept(now),
            Token::Client(id) => self.read_client(id, now),
            Token::Link(id) => self.read_link(id, now),
        }
    }

    fn carry_out(&mut self, event: Event, now: Millis) {
        match event {
            Event::Dial { link, endpoint } => self.dial(link, endpoint),
            Event::CloseLink(link) => {
                if let Some(socket) = self.links.take(link).as_mut().and_then(Link::socket) {
                    reset(socket.stream());
                }
            }
            Event::CloseClient { client, reset: at_once } => {
                if let Some(client) = self.clients.take(client)
                    && at_once
                {
                    reset(client.socket.stream());
                }
            }
            Event::ClientOutput(id) => self.write_client(id, now),
            Event::LinkOutput(id) => self.write_link(id, now),
            Event::ReadClient(id) => {
                if self.clients.get(id).is_some_and(|client| client.socket.is_readable()) {
                    self.again.push(Token::Client(id));
                }
            }
        }
    }

    fn open_mail(&mut self, now: Millis) {
        if self.site.mailbox.is_draining() && self.site.listener.is_some() {
            // Closing the socket would reset those that the kernel has let in.
            self.accept_all(now);
            self.site.listener = None;
        }
        for Dialled { link, outcome } in self.site.mailbox.take() {
            // The multiplexer may have closed it meanwhile.
            let Some(dialled) = self.links.get(link) else { continue };
            let connected = outcome.and_then(|stream| {
                epoll::add(&self.site.epoll, &stream, Token::Link(link).data(), EDGES)?;
                Ok(stream)
            });
            match connected {
                Ok(stream) => {
                    dialled.state = LinkState::Connected(Socket::new(stream));
                    self.mux.link_connected(link, now);
                }
                Err(error) => {
                    count(&self.site.redis.group.counters.refused);
                    self.links.take(link);
                    self.mux.link_failed(link, error.to_string(), now);
                }
            }
        }
    }

    fn dial(&mut self, link: LinkId, endpoint: Arc<Endpoint>) {
        let epoch = (self.site.redis.role == ListenerRole::Master).then_some(self.course.heading.epoch);
        let dial = Dial::start(&self.site.runtime, link, endpoint, self.site.mailbox.clone());
        self.links.put(link, Link { epoch, state: LinkState::Dialling { _dial: dial } });
    }
}

/// Makes the close that follows a reset: the peer learns of it at once, and takes no half of an answer for a whole.
fn reset(stream: &TcpStream) {
    // It fails only when the connection has been reset from the other side: then there is nothing to do.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

// Accepting.
impl Worker<'_> {
    fn accept(&mut self, now: Millis) {
        self.accept_at = None;
        for _ in 0..ACCEPTS {
            if !self.accept_one(now) {
                return;
            }
        }
        self.again.push(Token::Listener);
    }

    fn accept_all(&mut self, now: Millis) {
        while self.accept_one(now) {}
    }

    /// Whether there may be another one.
    fn accept_one(&mut self, now: Millis) -> bool {
        let Some(listener) = &self.site.listener else { return false };
        match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => {
                self.told = false;
                self.admit(socket.into(), now);
                true
            }
            Err(Errno::AGAIN) => false,
            Err(error) if concerns_one_client(&error.into()) => true,
            Err(error) => {
                // Out of descriptors or memory: at once it would fail at once.
                if !std::mem::replace(&mut self.told, true) {
                    warn!(group = %self.site.redis.group.name, %error, "cannot accept clients; trying again");
                }
                self.accept_at = Some(now.plus(u64::try_from(ACCEPT_PAUSE.as_millis()).unwrap_or(u64::MAX)));
                false
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, now: Millis) {
        let group = self.site.redis.group.clone();
        count(&group.counters.accepted);
        count(&group.counters.open);
        let present = Present { group, _token: self.site.clients.token() };
        let id = self.mux.accept(now);
        match epoll::add(&self.site.epoll, &stream, Token::Client(id).data(), EDGES) {
            Ok(()) => self.clients.put(id, Client { socket: Socket::new(stream), _present: present }),
            Err(error) => {
                warn!(group = %self.site.redis.group.name, %error, "cannot watch a client's socket");
                self.mux.client_gone(id, now);
            }
        }
    }
}

// Bytes of clients.
impl Worker<'_> {
    fn read_client(&mut self, id: ClientId, now: Millis) {
        let Some(client) = self.clients.get(id) else { return };
        // One that is not wanted now is read when the multiplexer says so.
        if !client.socket.is_readable() || !self.mux.wants_input(id) {
            return;
        }
        match client.socket.read(&mut self.scratch) {
            Got::Bytes(n) => self.mux.client_input(id, &self.scratch[..n], now),
            Got::Nothing => {}
            Got::End => self.mux.client_ended(id, now),
            Got::Broken(_) => return self.client_broke(id, now),
        }
        if client.socket.is_readable() {
            self.again.push(Token::Client(id));
        }
    }

    fn write_client(&mut self, id: ClientId, now: Millis) {
        let Some(client) = self.clients.get(id) else { return };
        while !client.socket.is_full() {
            let output = self.mux.client_output(id);
            if output.is_empty() {
                return;
            }
            match client.socket.write(output) {
                Ok(n) => self.mux.client_sent(id, n),
                Err(_) => return self.client_broke(id, now),
            }
        }
    }

    fn client_broke(&mut self, id: ClientId, now: Millis) {
        self.clients.take(id);
        self.mux.client_gone(id, now);
    }
}

// Bytes of links.
impl Worker<'_> {
    fn read_link(&mut self, id: LinkId, now: Millis) {
        let Some(link) = self.links.get(id) else { return };
        let epoch = link.epoch;
        let Some(socket) = link.socket().filter(|socket| socket.is_readable()) else { return };
        match socket.read(&mut self.scratch) {
            Got::Bytes(n) => {
                if let Some(epoch) = epoch {
                    self.site.redis.group.heard.note(epoch);
                }
                self.mux.link_input(id, &self.scratch[..n], now);
            }
            Got::Nothing => {}
            Got::End => return self.link_broke(id, None, now),
            Got::Broken(error) => return self.link_broke(id, Some(error), now),
        }
        if socket.is_readable() {
            self.again.push(Token::Link(id));
        }
    }

    fn write_link(&mut self, id: LinkId, now: Millis) {
        let Some(socket) = self.links.get(id).and_then(Link::socket) else { return };
        while !socket.is_full() {
            let output = self.mux.link_output(id);
            if output.is_empty() {
                return;
            }
            match socket.write(output) {
                Ok(n) => self.mux.link_sent(id, n),
                Err(error) => return self.link_broke(id, Some(error), now),
            }
        }
    }

    fn link_broke(&mut self, id: LinkId, error: Option<io::Error>, now: Millis) {
        debug!(group = %self.site.redis.group.name, ?error, "a database has ended a connection");
        self.links.take(id);
        self.mux.link_gone(id, now);
    }
}
