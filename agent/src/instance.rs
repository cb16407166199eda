//! The loop of one group on one node: take in what arrived, let the step decide, carry its effect out, look again.
//!
//! Nothing is decided here, and nothing here waits for a collaborator: Consul, the database, the peers and the disk
//! each have a task of their own and answer through a channel, so that a slow one delays nobody else.

use crate::api::InstanceStatus;
use crate::clock::{Clock, wall_ms};
use crate::memory::MemoryFile;
use crate::peers::{self, Exchange, Peers};
use crate::status;
use crate::step::{Asking, BEAT_EVERY_MS, Done, Effect, Event, Poll, Step, What};
use crate::{consul_side, database};
use consul::{Consul, GroupView, Presence, Registrar, ServiceState};
use election::{Address, Beat, Command, CommandOp, Duty, Engine, Member, Millis, NodeId, Reason, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often a database that nothing is expected of is asked how it is: as often as the peers are told.
const PROBE_EVERY_MS: u64 = BEAT_EVERY_MS;

/// What is due within this time is done at once when there is something else to do: an agent costs little but its
/// wake-ups, and so there are fewer.
const TOGETHER_MS: u64 = 50;

/// How old what `/status` says may be, where nothing has changed but figures.
const PUBLISH_EVERY_MS: u64 = 200;

/// How often it is asked while roles change, so that each step follows the one before at once.
const WATCHFUL_MS: u64 = 10;

/// A draining master asks for its hand-over again after this long; the request before has expired by then.
const HAND_OVER_AGAIN_MS: u64 = 5_000;

/// What reaches the loop from outside.
pub(crate) enum Message {
    /// Something was seen.
    Event(Event),
    /// A peer has called with its beat, and waits for this side's.
    Called(Box<Beat>, oneshot::Sender<Box<Beat>>),
    /// A call to a peer has ended.
    Call(NodeId, Exchange),
    /// An effect has been carried out.
    Done(Box<Done>),
    /// The database was asked how it is.
    Probed(Engine),
    /// The node is to be drained.
    Drain,
}

/// What the loop is given to work with.
pub(crate) struct Instance {
    pub(crate) step: Step,
    pub(crate) clock: Clock,
    pub(crate) consul: Consul,
    pub(crate) http: reqwest::Client,
    pub(crate) peer_key: String,
    pub(crate) memory: MemoryFile,
    pub(crate) engine_name: &'static str,
    /// How many numbered databases clients have.
    pub(crate) databases: Option<u32>,
    /// Where peers and proxies find this agent.
    pub(crate) agent_address: String,
    /// Orders to the task that owns the database.
    pub(crate) database: mpsc::Sender<database::Order>,
    /// Where the loop's own messages go.
    pub(crate) sender: mpsc::Sender<Message>,
    /// The recorded master's database, for the task that knocks at it.
    pub(crate) knock: watch::Sender<Option<Address>>,
    /// Where the peers' agents listen, by their databases' addresses, for the task that owns this one.
    pub(crate) agents: watch::Sender<BTreeMap<Address, String>>,
    /// The databases of the nodes that belong to the group, for the same task.
    pub(crate) nodes: watch::Sender<Option<BTreeSet<Address>>>,
    /// What the proxies are to be asked.
    pub(crate) asking: watch::Sender<Asking>,
    /// What `/status` and the health endpoints answer.
    pub(crate) published: watch::Sender<Arc<InstanceStatus>>,
    /// The node's record in Consul.
    pub(crate) presence: Presence<Member>,
    /// The instance's service in Consul.
    pub(crate) registrar: Arc<Registrar>,
    /// Told when an operator has asked this node, by way of Consul, to drain.
    pub(crate) draining: CancellationToken,
    /// When a hand-over was last asked for.
    pub(crate) asked: Option<Millis>,
    /// What was last published.
    pub(crate) gist: Option<Gist>,
    /// When it was last looked whether there is something to publish.
    pub(crate) looked: Millis,
}

/// A group without a record says nothing of its nodes.
fn learn_nodes(nodes: &watch::Sender<Option<BTreeSet<Address>>>, view: &GroupView) {
    if view.reachable && view.record.is_some() {
        let now = view.nodes.values().map(|node| Address::new(node.address.clone(), node.port)).collect();
        nodes.send_if_modified(|known| known.replace(now) != *known);
    }
}

/// What is published at once when it changes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Gist {
    reason: Discriminant<Reason>,
    news: u64,
    healthy: bool,
    reachable: bool,
}

impl Instance {
    /// Runs until `messages` ends.
    pub(crate) async fn run(mut self, mut messages: mpsc::Receiver<Message>, views: watch::Receiver<GroupView>) {
        let mut peers = Peers::new(self.step.me().id.clone());
        let mut probe = Probe::default();
        self.forward_views(views);
        loop {
            let now = self.clock.now();
            let poll = self.step.poll(now, wall_ms());
            self.report_violation();
            let (watchful, revisit) = (poll.watchful, self.carry_out(poll));
            self.look_around(now);
            self.drain(now);
            self.publish(now);
            if !self.wait(Wait { revisit, watchful }, &mut messages, &mut peers, &mut probe).await {
                return;
            }
        }
    }

    /// Takes in what arrives, or returns when it is time to look again; whether messages may still come. In the
    /// meantime peers are called and the database is asked how it is: the answers need a decision, the questions do not.
    async fn wait(
        &mut self,
        Wait { revisit, watchful }: Wait,
        messages: &mut mpsc::Receiver<Message>,
        peers: &mut Peers,
        probe: &mut Probe,
    ) -> bool {
        loop {
            let now = self.clock.now();
            self.call_peers(now, peers);
            probe.ask(now, watchful, &self.database);
            let wake = revisit.min(probe.due(now, watchful)).min(peers.next_due().unwrap_or(revisit));
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => {
                        self.take_in(message, peers, probe);
                        break;
                    }
                    None => return false,
                },
                () = sleep(self.clock.until(wake)) => if self.clock.now() >= revisit { break },
            }
        }
        while let Ok(message) = messages.try_recv() {
            self.take_in(message, peers, probe);
        }
        true
    }

    fn take_in(&mut self, message: Message, peers: &mut Peers, probe: &mut Probe) {
        let now = self.clock.now();
        match message {
            Message::Event(event) => self.step.handle(now, event),
            Message::Called(beat, reply) => {
                let from = beat.from.clone();
                self.step.handle(now, Event::Beat(beat));
                let _ = reply.send(Box::new(self.step.beat(now, &from)));
                peers.answered(now, &from, self.step.news());
            }
            Message::Call(id, exchange) => {
                peers.called(now, &id, &exchange);
                match exchange {
                    Exchange::Answered(beat) if beat.from == id => self.step.handle(now, Event::Beat(beat)),
                    Exchange::Refused => self.step.handle(now, Event::Agent(id, crate::step::Sighting::Refused)),
                    Exchange::Answered(_) | Exchange::Shunned | Exchange::Failed => {}
                }
            }
            Message::Drain => self.step.drain(now),
            Message::Done(done) => {
                if matches!(*done, Done::Engine(..)) {
                    probe.answered(now);
                }
                self.step.done(now, *done);
            }
            Message::Probed(engine) => {
                probe.answered(now);
                self.step.handle(now, Event::Engine(engine));
            }
        }
        self.learn_peers(peers);
    }

    /// Every change of the watched view becomes an event.
    fn forward_views(&self, mut views: watch::Receiver<GroupView>) {
        let (sender, nodes) = (self.sender.clone(), self.nodes.clone());
        tokio::spawn(async move {
            loop {
                let event = {
                    let view = views.borrow_and_update();
                    learn_nodes(&nodes, &view);
                    consul_side::watched(&view)
                };
                if sender.send(Message::Event(event)).await.is_err() || views.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    fn learn_peers(&self, peers: &mut Peers) {
        for member in self.step.view().members.values().filter(|m| m.id != self.step.me().id) {
            peers.learn(&member.id, &member.agent);
        }
        let members = self.step.view().members.values();
        let agents = || members.map(|m| (Address::new(m.address.clone(), m.port), m.agent.clone())).collect();
        self.agents.send_if_modified(|known| {
            let now: BTreeMap<Address, String> = agents();
            std::mem::replace(known, now.clone()) != now
        });
    }

    /// Starts the effect, if there is one, and says when to look again.
    fn carry_out(&self, poll: Poll) -> Millis {
        if let Some(effect) = poll.effect {
            let Effect { stamp, what } = effect;
            match what {
                What::Engine(op) => self.order(database::Order::Apply(stamp, op)),
                What::Remember(memory) => self.remember(memory),
                consul_bound => self.ask_consul(consul_bound),
            }
        }
        poll.revisit
    }

    fn order(&self, order: database::Order) {
        let (database, sender) = (self.database.clone(), self.sender.clone());
        tokio::spawn(async move {
            if let Err(mpsc::error::SendError(database::Order::Apply(_, op))) = database.send(order).await {
                let done = Done::Engine(op, Err("the agent is stopping".to_owned()), Engine::Unknown);
                let _ = sender.send(Message::Done(Box::new(done))).await;
            }
        });
    }

    fn remember(&self, memory: election::Memory) {
        let (file, sender) = (self.memory.clone(), self.sender.clone());
        tokio::task::spawn_blocking(move || {
            let result = file.store(&memory).map(|()| memory).map_err(|e| {
                tracing::error!("{e}: {}", std::error::Error::source(&e).map_or(String::new(), ToString::to_string));
                e.to_string()
            });
            let _ = sender.blocking_send(Message::Done(Box::new(Done::Remembered(result))));
        });
    }

    fn ask_consul(&self, what: What) {
        let (consul, sender, clock) = (self.consul.clone(), self.sender.clone(), self.clock);
        let group = election::GroupName(self.step.me().group.clone());
        tokio::spawn(async move {
            let done = match what {
                What::Submit(proposal) => {
                    let written = consul_side::submit(&consul, &group, &proposal).await;
                    Done::Submitted(proposal, written)
                }
                What::Answer { outcome, command_index } => {
                    Done::Answered(consul_side::answer(&consul, &group, &outcome, command_index).await)
                }
                _ => Done::Read(consul_side::read(&consul, &group, clock.now()).await),
            };
            let _ = sender.send(Message::Done(Box::new(done))).await;
        });
    }

    fn call_peers(&self, now: Millis, peers: &mut Peers) {
        for (id, agent) in peers.due(now, self.step.news()) {
            let beat = self.step.beat(now, &id);
            let (http, key, sender) = (self.http.clone(), self.peer_key.clone(), self.sender.clone());
            tokio::spawn(async move {
                let exchange = peers::call(&http, &agent, &key, &beat).await;
                let _ = sender.send(Message::Call(id, exchange)).await;
            });
        }
    }

    /// A drain concerns the whole node, whoever asked for it; a master's begins with a switchover.
    fn drain(&mut self, now: Millis) {
        if !matches!(self.step.duty(), Some(Duty::Drain { .. })) {
            return;
        }
        self.draining.cancel();
        let due = self.asked.is_none_or(|at| now.since(at) >= HAND_OVER_AGAIN_MS);
        if !due || !self.step.wants_handover() {
            return;
        }
        self.asked = Some(now);
        let command = Command {
            id: uuid::Uuid::new_v4().simple().to_string(),
            op: CommandOp::Switchover,
            target: None,
            expect_epoch: self.step.view().record.as_ref().map_or(0, |r| r.epoch),
            expires_at: wall_ms() + HAND_OVER_AGAIN_MS,
            by: format!("drain of {}", self.step.me().id),
            grace_ms: None,
        };
        let (consul, group) = (self.consul.clone(), election::GroupName(self.step.me().group.clone()));
        tokio::spawn(async move {
            if let Err(error) = consul.put_command(&group, &command).await {
                tracing::warn!(%group, "cannot ask for the hand-over: {}", crate::error_chain(&error));
            }
        });
    }

    /// Points the tasks that look around for this loop at what it wants to know.
    fn look_around(&self, now: Millis) {
        let me = &self.step.me().id;
        let master = self.step.view().record.as_ref().and_then(|r| r.master.as_ref());
        let knock = master.filter(|m| m.id != *me).map(election::Master::endpoint);
        self.knock.send_if_modified(|target| std::mem::replace(target, knock.clone()) != knock);
        let asking = self.step.asking(now);
        self.asking.send_if_modified(|was| std::mem::replace(was, asking) != asking);
    }

    /// Says how things are: at once when more has changed than figures, else now and then.
    fn publish(&mut self, now: Millis) {
        let gist = Gist {
            reason: discriminant(self.step.reason()),
            news: self.step.news(),
            healthy: status::is_healthy(&self.step),
            reachable: self.step.view().reachable,
        };
        let same = self.gist.replace(gist) == Some(gist);
        if same && now.since(self.looked) < PUBLISH_EVERY_MS {
            return;
        }
        self.looked = now;
        let status = status::instance(&self.step, now, self.engine_name);
        if **self.published.borrow() == status {
            return;
        }
        let (role, epoch, version) = (status.role, status.epoch, status.version.clone());
        // Consul stores every new text: the sentence has figures in it that change all the time.
        let health = if status.healthy { Ok(()) } else { Err(status.reason_code.replace('_', " ")) };
        self.published.send_replace(Arc::new(status));
        self.presence.set(&consul_side::member(&self.step, &self.agent_address, self.engine_name, self.databases));
        if let Some(role) = role {
            self.registrar.set(ServiceState { role, epoch, version, health });
        }
    }

    fn report_violation(&mut self) {
        if let Some(violation) = self.step.take_violation() {
            // Logged where it was found; what is left to say is that it is a defect of this program.
            tracing::error!(%violation, "this is a defect: please report it with this log");
        }
    }
}

/// What the loop waits for besides messages.
struct Wait {
    /// When a decision is due.
    revisit: Millis,
    /// Whether the database is to be asked often.
    watchful: bool,
}

/// When the database is asked next.
#[derive(Default)]
struct Probe {
    asking: bool,
    last: Millis,
}

impl Probe {
    fn due(&self, now: Millis, watchful: bool) -> Millis {
        if self.asking {
            return now.plus(PROBE_EVERY_MS);
        }
        self.last.plus(if watchful { WATCHFUL_MS } else { PROBE_EVERY_MS })
    }

    fn ask(&mut self, now: Millis, watchful: bool, database: &mpsc::Sender<database::Order>) {
        let slack = if watchful { 0 } else { TOGETHER_MS };
        if self.asking || now.plus(slack) < self.due(now, watchful) {
            return;
        }
        // A full queue means that an operation is under way; its answer says how the database is.
        self.asking = database.try_send(database::Order::Probe).is_ok();
        self.last = now;
    }

    fn answered(&mut self, now: Millis) {
        self.asking = false;
        self.last = now;
    }
}

/// The role of `me` in the record, if there is one.
pub(crate) fn role(step: &Step) -> Option<Role> {
    step.view().record.as_ref().map(|r| r.role_of(&step.me().id))
}
