//! Virtual time, the queue of what happens next, and who can reach whom.

use super::bugs::Bug;
use super::checks::Ledger;
use super::client::Proxy;
use super::consul::Consul;
use super::data::Disk;
use super::history::Histories;
use super::mix::Mix;
use super::node::Agent;
use super::process::Process;
use super::rng::Rng;
use super::story::Story;
use config::Engine as Kind;
use election::{Memory, NodeId, Proposal, Stamp};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something that happens at an instant.
pub(crate) type Task = Box<dyn FnOnce(&mut World)>;

/// Instant and number in one word: most of a run's time goes into keeping these in order.
struct Scheduled {
    key: u64,
    task: Task,
}

impl Scheduled {
    /// A run ends long before its clock (71 minutes) or its numbers outgrow half a word each.
    fn new(at: u64, number: u32, task: Task) -> Self {
        Self { key: (at << 32) | u64::from(number), task }
    }

    fn at(&self) -> u64 {
        self.key >> 32
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    // The heap gives the greatest first: the earliest instant, and of one instant the first that was scheduled.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

/// A machine.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) up: bool,
    pub(crate) agent: Option<Agent>,
    pub(crate) database: Option<Process>,
    pub(crate) disk: Disk,
    /// What the last process let others replicate with.
    pub(crate) last_secret: String,
    /// The agent's memory on disk.
    pub(crate) memory: Memory,
    /// The planted bug's: what is really on the disk.
    pub(crate) unsynced: Option<Memory>,
    /// The newest record this node ever remembered, whatever its disk says.
    pub(crate) remembered: Stamp,
    /// Where its monotonic clock starts, in milliseconds, and how fast it runs, in thousandths.
    pub(crate) clock: (u64, u64),
    /// Its file says `adopt = true`.
    pub(crate) adopt: bool,
    /// The data on its disk were there before its agent, and it has not taken them over.
    pub(crate) foreign: bool,
    /// A scenario's: this node is told nothing new of Consul by its watch.
    pub(crate) blind: bool,
}

/// Everything.
pub(crate) struct World {
    pub(crate) now: u64,
    scheduled: u32,
    queue: BinaryHeap<Scheduled>,
    pub(crate) rng: Rng,
    numbers: u64,
    pub(crate) mix: Mix,
    pub(crate) bug: Option<Bug>,
    pub(crate) consul: Consul,
    pub(crate) nodes: Vec<Node>,
    pub(crate) proxies: Vec<Proxy>,
    /// `cut[a][b]`: nothing gets from a to b. Nodes first, then Consul, then the proxies.
    pub(crate) cut: Vec<Vec<bool>>,
    pub(crate) ledger: Ledger,
    /// Of the SQL engines.
    pub(crate) histories: Histories,
    pub(crate) story: Story,
    pub(crate) failure: Option<String>,
    pub(crate) faults: u64,
    /// The agents' actions, but for the marker's; and the one that a scenario is cut after.
    pub(crate) actions: u64,
    pub(crate) cut_after: Option<u64>,
    /// A scenario's: which transactions stay under way until it lets them go, and those that do.
    pub(crate) hold: Option<fn(&Proposal) -> bool>,
    pub(crate) held: Vec<Proposal>,
    /// A scenario's: a second agent of a name waits for the first one's answer.
    pub(crate) asking_first: Option<u64>,
    /// A scenario's: the proxies are told nothing new.
    pub(crate) blind_proxies: bool,
}

impl World {
    pub(crate) fn new(seed: u64, engine: Kind, bug: Option<Bug>, telling: bool) -> Self {
        let mut rng = Rng::new(seed);
        let mix = Mix::draw(&mut rng).with(engine, &mut rng);
        Self::of(rng, mix, bug, telling, &format!("seed {seed}"))
    }

    pub(crate) fn of(mut rng: Rng, mix: Mix, bug: Option<Bug>, telling: bool, name: &str) -> Self {
        let ends = mix.nodes + 1 + mix.proxies.len();
        let node = |rng: &mut Rng| Node {
            up: true,
            clock: (rng.range(1_000_000, 9_000_000), rng.range(970, 1_030)),
            ..Node::default()
        };
        let nodes = (0..mix.nodes).map(|_| node(&mut rng)).collect();
        let mut story = Story::new(telling);
        story.tell(0, || format!("{name}: {mix:?}"));
        Self {
            now: 0,
            scheduled: 0,
            queue: BinaryHeap::new(),
            rng,
            numbers: 0,
            bug,
            consul: Consul::default(),
            nodes,
            proxies: mix.proxies.iter().map(|_| Proxy::default()).collect(),
            cut: vec![vec![false; ends]; ends],
            mix,
            ledger: Ledger::default(),
            histories: Histories::new(),
            story,
            failure: None,
            faults: 0,
            actions: 0,
            cut_after: None,
            hold: None,
            held: Vec::new(),
            asking_first: None,
            blind_proxies: false,
        }
    }

    /// Does the next thing, unless it lies after `until` or something has failed.
    pub(crate) fn step(&mut self, until: u64) -> bool {
        if self.failure.is_some() || self.queue.peek().is_none_or(|next| next.at() > until) {
            return false;
        }
        let Some(next) = self.queue.pop() else { return false };
        self.now = next.at();
        (next.task)(self);
        true
    }

    pub(crate) fn after(&mut self, delay: u64, task: impl FnOnce(&mut World) + 'static) {
        self.scheduled += 1;
        self.queue.push(Scheduled::new(self.now + delay, self.scheduled, Box::new(task)));
    }

    /// A number that nothing else has.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The first thing that is wrong ends the run.
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.story.tell(self.now, || format!("WRONG: {what}"));
        self.failure.get_or_insert(what);
    }

    pub(crate) fn check(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.fail(what);
        }
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        self.story.tell(self.now, line);
    }

    /// The end that Consul is.
    pub(crate) fn consul_end(&self) -> usize {
        self.mix.nodes
    }

    pub(crate) fn proxy_end(&self, proxy: usize) -> usize {
        self.mix.nodes + 1 + proxy
    }

    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut[from][to]
    }

    /// Whether calls to Consul from there are answered.
    pub(crate) fn has_consul(&self, from: usize) -> bool {
        let consul = self.consul_end();
        !self.consul.outage && self.reaches(from, consul) && self.reaches(consul, from)
    }

    pub(crate) fn delay(&mut self) -> u64 {
        if self.rng.chance(self.mix.slow) { self.rng.range(1_000, 400_000) } else { self.rng.range(100, 800) }
    }

    /// One message; it is lost when the way is cut when it leaves or when it would arrive.
    pub(crate) fn send(&mut self, from: usize, to: usize, task: impl FnOnce(&mut World) + 'static) {
        if !self.reaches(from, to) {
            return;
        }
        let delay = self.delay();
        self.after(delay, move |w| {
            if w.reaches(from, to) {
                task(w);
            }
        });
    }

    /// Runs in the agent of that boot; later when it is stopped, never when it has ended.
    pub(crate) fn at_agent(&mut self, n: usize, boot: u64, task: impl FnOnce(&mut World) + 'static) {
        let Some(agent) = self.nodes[n].agent.as_mut().filter(|a| a.boot == boot) else { return };
        if agent.paused { agent.inbox.push(Box::new(task)) } else { task(self) }
    }

    /// Runs in the process of that run; later when it is stopped, never when it has ended.
    pub(crate) fn at_database(&mut self, n: usize, run: u64, task: impl FnOnce(&mut World) + 'static) {
        let Some(process) = self.nodes[n].database.as_mut().filter(|p| p.run == run) else { return };
        if process.paused { process.inbox.push(Box::new(task)) } else { task(self) }
    }

    pub(crate) fn database(&mut self, n: usize, run: u64) -> Option<&mut Process> {
        self.nodes[n].database.as_mut().filter(|p| p.run == run)
    }

    pub(crate) fn agent(&mut self, n: usize, boot: u64) -> Option<&mut Agent> {
        self.nodes[n].agent.as_mut().filter(|a| a.boot == boot)
    }

    /// Milliseconds since 1970, for people.
    pub(crate) fn wall(&self) -> u64 {
        1_700_000_000_000 + self.now / 1_000
    }
}

/// The name of a node.
pub(crate) fn name(n: usize) -> NodeId {
    NodeId(format!("n{}", n + 1))
}

/// The node of that name.
pub(crate) fn index_of(id: &NodeId) -> Option<usize> {
    id.as_str().strip_prefix('n').and_then(|n| n.parse::<usize>().ok()).and_then(|n| n.checked_sub(1))
}
