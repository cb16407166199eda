//! What a request is: whether it may write, whether it needs a connection of its own, whether it is answered here, or
//! refused because it belongs to the agents.
//!
//! The server's own `COMMAND` table says what its commands do, so that a new command needs no new release. What the
//! proxy treats in a special way stands in [`FIXED`], which is also the minimum before the table was read.

use super::view::{Reply, Request};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It reads.
    Read,
    /// It may write: everything that is not known to do less.
    Write,
    /// It neither writes nor tells what is in the data.
    Harmless,
    /// It may wait at the server, and needs a connection of its own for so long.
    Blocking(Effect),
    /// It begins, ends or guards a transaction.
    Transaction(Transaction),
    /// It changes what the client is subscribed to.
    PubSub(PubSub),
    /// It is about the client's connection, and answered here.
    Session(Session),
    /// It binds the client to its connection for good.
    Pinning,
    /// It is answered with this error.
    Refused(Refusal),
    /// A browser was made to send it: the connection is closed without a word, as Redis does.
    Hostile,
}

/// What a request does to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Read,
    Write,
}

/// The verbs of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transaction {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
}

/// The verbs of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PubSub {
    Subscribe,
    Unsubscribe,
    Psubscribe,
    Punsubscribe,
    Ssubscribe,
    Sunsubscribe,
}

/// The verbs of a connection's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    Auth,
    Hello,
    Select,
    Reset,
    Quit,
    ClientSetname,
    ClientGetname,
    ClientSetinfo,
    ClientReply,
}

/// Why a request is refused; its text follows `-ERR `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The command belongs to the agents, or would touch other clients.
    Belongs {
        /// As in the table: `client|kill`.
        command: &'static str,
        /// Why, and what to do instead.
        why: &'static str,
    },
    /// What is answered here takes more or fewer arguments.
    Arguments(&'static str),
    /// The database is not one of the clients'.
    Database,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Belongs { command, why } => {
                write!(f, "understudy: {} is refused: {why}", command.to_ascii_uppercase().replace('|', " "))
            }
            Self::Arguments(command) => write!(f, "wrong number of arguments for '{command}' command"),
            Self::Database => f.write_str("DB index is out of range"),
        }
    }
}

/// The answer to `COMMAND` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The server refused to tell.
    #[error("the server answers COMMAND with an error: {0}")]
    Refused(String),
    /// It is not what Redis answers.
    #[error("the server's answer to COMMAND is not a list of commands (entry {0})")]
    Shape(usize),
}

/// The commands of one server.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    table: HashMap<Box<[u8]>, Command, BuildHasherDefault<Fnv>>,
    last: Last,
}

#[derive(Clone, Copy, Debug)]
struct Command {
    rule: Rule,
    /// The argument that is the last key, the name being argument 0.
    last_key: usize,
}

/// How a command's class is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It is this, whatever its arguments.
    Always(Class),
    /// It is this with as many arguments as it takes (negative: or more), the name included; else it is refused.
    Counted(Class, i32, &'static str),
    /// Its second word is looked up as `first|second`; one that is not known is this.
    Container(Class),
    /// It blocks when it is told to by the word `BLOCK`.
    Stream(Effect),
    /// It writes, and may name another database: as the argument behind its keys (true: behind the word `DB`).
    Elsewhere { named: bool },
    /// It binds the client to its connection, and may not name another.
    Tracking,
}

/// The name that was looked up last, when its class does not depend on its arguments: most clients repeat themselves.
#[derive(Clone, Copy, Debug)]
struct Last {
    name: [u8; Last::LONGEST],
    len: usize,
    class: Class,
}

const ROLES: &str = "roles belong to the agents; use `understudy switchover`";
const COPIES: &str = "copies belong to the agents; another copy is another node with an agent";
const PROCESS: &str =
    "the process belongs to its agent; settings stand in [instance.settings], `understudy drain` stops it";
const ACCOUNTS: &str = "accounts belong to the agent; the clients' password is `password_file` in [[instance]]";
const NO_REDIRECT: &str = "REDIRECT needs another connection of yours, which many clients share; use HELLO 3";
const SHARED: &str = "many clients share the server's connections";
const MARKER: &str = "the agents keep data of their own in a database of this server";

/// What the proxy treats in a special way, whatever the server's table says. A sub-command that is not listed follows
/// its container's line, if there is one.
///
/// What belongs to the agents is what the clients' account is denied (the agent's `accounts.rs`); here it gets a
/// sentence, for accounts of other making too.
const FIXED: &[(&str, Rule)] = &[
    ("acl", Rule::Container(refused("acl", ACCOUNTS))),
    ("acl|cat", Rule::Always(Class::Harmless)),
    ("acl|genpass", Rule::Always(Class::Harmless)),
    ("acl|help", Rule::Always(Class::Harmless)),
    ("acl|whoami", Rule::Always(Class::Harmless)),
    ("auth", Rule::Counted(Class::Session(Session::Auth), -2, "auth")),
    ("client", Rule::Container(Class::Pinning)),
    ("client|getname", Rule::Counted(Class::Session(Session::ClientGetname), 2, "client|getname")),
    ("client|help", Rule::Always(Class::Harmless)),
    ("client|kill", Rule::Always(refused("client|kill", SHARED))),
    ("client|list", Rule::Always(Class::Harmless)),
    ("client|pause", Rule::Always(refused("client|pause", ROLES))),
    ("client|reply", Rule::Counted(Class::Session(Session::ClientReply), 3, "client|reply")),
    ("client|setinfo", Rule::Counted(Class::Session(Session::ClientSetinfo), 4, "client|setinfo")),
    ("client|setname", Rule::Counted(Class::Session(Session::ClientSetname), 3, "client|setname")),
    ("client|tracking", Rule::Tracking),
    ("client|unblock", Rule::Always(refused("client|unblock", SHARED))),
    ("client|unpause", Rule::Always(refused("client|unpause", ROLES))),
    ("cluster", Rule::Always(refused("cluster", "the group is no Redis Cluster; `understudy status` shows its nodes"))),
    ("command", Rule::Always(Class::Harmless)),
    ("config", Rule::Container(refused("config", PROCESS))),
    ("config|help", Rule::Always(Class::Harmless)),
    ("config|resetstat", Rule::Always(Class::Harmless)),
    ("copy", Rule::Elsewhere { named: true }),
    ("debug", Rule::Always(refused("debug", PROCESS))),
    ("discard", Rule::Counted(Class::Transaction(Transaction::Discard), 1, "discard")),
    ("echo", Rule::Always(Class::Harmless)),
    ("exec", Rule::Counted(Class::Transaction(Transaction::Exec), 1, "exec")),
    ("failover", Rule::Always(refused("failover", ROLES))),
    ("hello", Rule::Counted(Class::Session(Session::Hello), -1, "hello")),
    ("host:", Rule::Always(Class::Hostile)),
    ("info", Rule::Always(Class::Harmless)),
    ("lastsave", Rule::Always(Class::Harmless)),
    ("latency", Rule::Always(Class::Harmless)),
    ("module", Rule::Always(refused("module", PROCESS))),
    ("monitor", Rule::Counted(Class::Pinning, 1, "monitor")),
    ("move", Rule::Elsewhere { named: false }),
    ("multi", Rule::Counted(Class::Transaction(Transaction::Multi), 1, "multi")),
    ("ping", Rule::Always(Class::Harmless)),
    ("post", Rule::Always(Class::Hostile)),
    ("psubscribe", Rule::Counted(Class::PubSub(PubSub::Psubscribe), -2, "psubscribe")),
    ("psync", Rule::Always(refused("psync", COPIES))),
    ("pubsub", Rule::Always(Class::Harmless)),
    ("punsubscribe", Rule::Counted(Class::PubSub(PubSub::Punsubscribe), -1, "punsubscribe")),
    ("quit", Rule::Counted(Class::Session(Session::Quit), -1, "quit")),
    ("replconf", Rule::Always(refused("replconf", COPIES))),
    ("replicaof", Rule::Always(refused("replicaof", ROLES))),
    ("reset", Rule::Counted(Class::Session(Session::Reset), 1, "reset")),
    ("role", Rule::Always(Class::Harmless)),
    ("script|debug", Rule::Always(Class::Pinning)),
    ("select", Rule::Counted(Class::Session(Session::Select), 2, "select")),
    ("shutdown", Rule::Always(refused("shutdown", PROCESS))),
    ("slaveof", Rule::Always(refused("slaveof", ROLES))),
    ("slowlog", Rule::Always(Class::Harmless)),
    ("ssubscribe", Rule::Counted(Class::PubSub(PubSub::Ssubscribe), -2, "ssubscribe")),
    ("subscribe", Rule::Counted(Class::PubSub(PubSub::Subscribe), -2, "subscribe")),
    ("sunsubscribe", Rule::Counted(Class::PubSub(PubSub::Sunsubscribe), -1, "sunsubscribe")),
    ("swapdb", Rule::Always(refused("swapdb", MARKER))),
    ("sync", Rule::Always(refused("sync", COPIES))),
    ("time", Rule::Always(Class::Harmless)),
    ("unsubscribe", Rule::Counted(Class::PubSub(PubSub::Unsubscribe), -1, "unsubscribe")),
    ("unwatch", Rule::Counted(Class::Transaction(Transaction::Unwatch), 1, "unwatch")),
    ("wait", Rule::Always(Class::Blocking(Effect::None))),
    ("waitaof", Rule::Always(Class::Blocking(Effect::None))),
    ("watch", Rule::Counted(Class::Transaction(Transaction::Watch), -2, "watch")),
    ("xread", Rule::Stream(Effect::Read)),
    ("xreadgroup", Rule::Stream(Effect::Write)),
];

/// No command's name, with its sub-command's, is longer; what is longer is not known.
const LONGEST_NAME: usize = 48;

const fn refused(command: &'static str, why: &'static str) -> Class {
    Class::Refused(Refusal::Belongs { command, why })
}

impl Commands {
    /// What is known without having asked a server.
    pub(crate) fn built_in() -> Self {
        let mut table = HashMap::with_capacity_and_hasher(FIXED.len(), BuildHasherDefault::default());
        for (name, rule) in FIXED {
            let last_key = match rule {
                Rule::Elsewhere { named: true } => 2,
                Rule::Elsewhere { named: false } => 1,
                _ => 0,
            };
            table.insert(name.as_bytes().into(), Command { rule: *rule, last_key });
        }
        Self { table, last: Last::default() }
    }

    /// What a server's answer to `COMMAND` says (of Redis 6 or later, in either protocol), below what is built in.
    ///
    /// # Errors
    /// When it is an error or not a list of commands.
    pub(crate) fn read(answer: Reply<'_>) -> Result<Self, TableError> {
        if answer.is_error() {
            return Err(TableError::Refused(String::from_utf8_lossy(answer.text().unwrap_or_default()).into_owned()));
        }
        let mut commands = Self::built_in();
        let mut seen = 0;
        for entry in answer.items() {
            commands.add(entry, Above::Nothing).ok_or(TableError::Shape(seen))?;
            seen += 1;
        }
        if seen == 0 {
            return Err(TableError::Shape(0));
        }
        Ok(commands)
    }

    /// What is to be done with a request. `databases` is how many databases clients have: the next one is the agents'.
    #[inline]
    pub(crate) fn class(&mut self, request: Request<'_>, databases: Option<u32>) -> Class {
        let name = request.name();
        if self.last.is(name) {
            return self.last.class;
        }
        self.look_up(request, name, databases)
    }

    fn look_up(&mut self, request: Request<'_>, name: &[u8], databases: Option<u32>) -> Class {
        let mut folded = Folded::default();
        let Some(command) = self.find(&mut folded, &[name]) else { return Class::Write };
        match command.rule {
            Rule::Always(class) => {
                self.last.set(name, class);
                class
            }
            Rule::Container(otherwise) => {
                let sub = request.arguments().nth(1).and_then(|sub| self.find(&mut folded, &[b"|", sub]));
                match sub {
                    Some(Command { rule: Rule::Always(class), .. }) => class,
                    Some(Command { rule: Rule::Counted(class, takes, name), .. }) => {
                        counted(class, takes, name, request)
                    }
                    Some(Command { rule: Rule::Tracking, .. }) => tracking(request),
                    _ => otherwise,
                }
            }
            Rule::Tracking => tracking(request),
            Rule::Counted(class, takes, name) => counted(class, takes, name, request),
            Rule::Stream(effect) if has_word(request, b"block") => Class::Blocking(effect),
            Rule::Stream(Effect::Write) => Class::Write,
            Rule::Stream(_) => Class::Read,
            Rule::Elsewhere { named } => elsewhere(request, command.last_key, named, databases),
        }
    }

    /// What is known of the name that `parts` complete; nothing for one that is longer than any command's.
    fn find(&self, folded: &mut Folded, parts: &[&[u8]]) -> Option<Command> {
        for part in parts {
            folded.push(part)?;
        }
        self.table.get(folded.bytes.get(..folded.len)?).copied()
    }

    /// Takes in one entry of the server's table, and its sub-commands.
    fn add(&mut self, entry: Reply<'_>, above: Above) -> Option<()> {
        let mut items = entry.items();
        let name = items.next()?.text()?.to_ascii_lowercase();
        let _arity = items.next()?.integer()?;
        let flags = Flags::read(items.next()?);
        let _first_key = items.next()?.integer()?;
        let last_key = usize::try_from(items.next()?.integer()?).unwrap_or(0);
        // Behind: the keys' step, the categories, tips, key specifications (since 7.0), sub-commands (since 7.0).
        let subs = items.nth(4);
        let known = self.table.get(name.as_slice()).map(|command| command.rule);
        let rule = match (known, above) {
            (Some(rule), _) => rule,
            (None, Above::Decided) => return Some(()),
            (None, Above::Nothing) if subs.is_some_and(|subs| subs.items().next().is_some()) => {
                Rule::Container(flags.class())
            }
            (None, Above::Nothing) => Rule::Always(flags.class()),
        };
        self.table.insert(name.into(), Command { rule, last_key });
        // What a container was decided to be here holds for sub-commands that are not listed.
        let below = if known.is_some() { Above::Decided } else { Above::Nothing };
        subs.into_iter().flat_map(Reply::items).try_for_each(|sub| self.add(sub, below))
    }
}

/// Whether the container of a sub-command is one of [`FIXED`].
#[derive(Clone, Copy)]
enum Above {
    Nothing,
    Decided,
}

/// What the server's flags say of a command.
#[derive(Clone, Copy, Default)]
struct Flags {
    readonly: bool,
    blocking: bool,
}

impl Flags {
    fn read(flags: Reply<'_>) -> Self {
        let mut read = Self::default();
        for flag in flags.items().filter_map(Reply::text) {
            read.readonly |= flag == b"readonly";
            read.blocking |= flag == b"blocking";
        }
        read
    }

    fn class(self) -> Class {
        match (self.blocking, self.readonly) {
            (true, true) => Class::Blocking(Effect::Read),
            (true, false) => Class::Blocking(Effect::Write),
            (false, true) => Class::Read,
            (false, false) => Class::Write,
        }
    }
}

/// The class when the request has as many arguments as it takes. Only what is not simply sent on is counted here; the
/// server counts the rest.
fn counted(class: Class, takes: i32, name: &'static str, request: Request<'_>) -> Class {
    let count = i64::try_from(request.count()).unwrap_or(i64::MAX);
    let takes = i64::from(takes);
    if count == takes || (takes < 0 && count >= -takes) { class } else { Class::Refused(Refusal::Arguments(name)) }
}

/// What a client is to be told of goes to its own connection: any other is one that many share.
fn tracking(request: Request<'_>) -> Class {
    if has_word(request, b"redirect") { refused("client|tracking", NO_REDIRECT) } else { Class::Pinning }
}

fn has_word(request: Request<'_>, word: &[u8]) -> bool {
    request.arguments().skip(1).any(|argument| argument.eq_ignore_ascii_case(word))
}

/// Refuses what would go into a database that is not the clients'.
fn elsewhere(request: Request<'_>, last_key: usize, named: bool, databases: Option<u32>) -> Class {
    let behind = || request.arguments().skip(last_key + 1);
    // Before it is known how many there are, only the first is certainly not the agents'.
    let foreign = |text: &[u8]| {
        let index = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u32>().ok());
        index.is_some_and(|index| index >= databases.unwrap_or(1))
    };
    // Of an option that is said twice the server takes the last.
    let named_ones = || behind().zip(behind().skip(1)).filter(|(word, _)| word.eq_ignore_ascii_case(b"db"));
    let refused =
        if named { named_ones().any(|(_, index)| foreign(index)) } else { behind().next().is_some_and(foreign) };
    if refused { Class::Refused(Refusal::Database) } else { Class::Write }
}

impl Last {
    const LONGEST: usize = 16;

    #[inline]
    fn is(&self, name: &[u8]) -> bool {
        self.name.get(..self.len) == Some(name) && !name.is_empty()
    }

    fn set(&mut self, name: &[u8], class: Class) {
        if let Some(place) = self.name.get_mut(..name.len()) {
            place.copy_from_slice(name);
            self.len = name.len();
            self.class = class;
        }
    }
}

impl Default for Last {
    fn default() -> Self {
        Self { name: [0; Self::LONGEST], len: 0, class: Class::Write }
    }
}

/// A name in small letters, without allocation.
struct Folded {
    bytes: [u8; LONGEST_NAME],
    len: usize,
}

impl Default for Folded {
    fn default() -> Self {
        Self { bytes: [0; LONGEST_NAME], len: 0 }
    }
}

impl Folded {
    fn push(&mut self, part: &[u8]) -> Option<()> {
        let place = self.bytes.get_mut(self.len..self.len + part.len())?;
        place.copy_from_slice(part);
        place.make_ascii_lowercase();
        self.len += part.len();
        Some(())
    }
}

/// FNV-1a: the names are short and the server's, so that nobody can choose colliding ones.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The length that a slice puts before its bytes.
    fn write_usize(&mut self, number: usize) {
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x0100_0000_01b3);
    }
}
