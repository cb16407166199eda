//! An agent: the real `Step`, and around it what its driver does: asks the database, calls peers, watches Consul.

use super::bugs::Bug;
use super::engine::Adapter;
use super::operator::LATE_TXN_US;
use super::rng::Rng;
use super::world::{Task, World, index_of, name};
use agent::step::{BEAT_EVERY_MS, Done, Effect, Event, Sighting, Step, What, Written};
use election::{Beat, Engine, Incarnation, Me, Member, Memory, Millis, Phase, Proposal, Reason, Record, Role, Stamp};
use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};

const MS: u64 = 1_000;

/// How often a database is asked when nothing changes, and when something does.
const ASK_EVERY_US: (u64, u64) = (100 * MS, 15 * MS);

/// A call to anybody is given up after this.
const PATIENCE_US: u64 = 500 * MS;

/// After a refusal or a failure, the next look comes this soon.
const RETRY_US: u64 = 40 * MS;

/// A session is renewed twice in its time to live, which Consul doubles.
const SESSION_TTL_US: u64 = 10_000 * MS;

/// A running agent.
pub(crate) struct Agent {
    pub(crate) boot: u64,
    pub(crate) step: Step,
    pub(crate) paused: bool,
    pub(crate) inbox: Vec<Task>,
    pub(crate) adapter: Adapter,
    /// The command of the database that is waited for.
    pub(crate) call: u64,
    /// When a draining master may ask for its hand-over again.
    pub(crate) hand_over_after: u64,
    /// Its last action is under way.
    pub(crate) last: bool,
    asking: u64,
    watchful: bool,
    poll_at: u64,
    news: u64,
    told_at: u64,
    pub(crate) session: Option<String>,
    registered: Option<(String, Option<Incarnation>, Role, bool)>,
    peers: BTreeMap<usize, Call>,
    reason: Option<Discriminant<Reason>>,
    /// Under which record the proxies were last asked whether they are quiet.
    pub(crate) asked: Stamp,
}

#[derive(Default, Clone, Copy)]
struct Call {
    calling: u64,
    next: u64,
}

impl World {
    pub(crate) fn millis(&self, n: usize) -> Millis {
        let (start, rate) = self.nodes[n].clock;
        Millis(start + self.now / MS * rate / 1_000)
    }

    pub(crate) fn start_agent(&mut self, n: usize) {
        if self.nodes[n].agent.is_some() || !self.nodes[n].up {
            return;
        }
        let boot = self.number();
        let me = Me {
            id: name(n),
            database: super::process::address(n),
            zone: None,
            priority: self.mix.priorities[n],
            adopt: self.nodes[n].adopt || (self.bug == Some(Bug::BootstrapsAgain) && self.consul.record.is_none()),
            boot: format!("boot{boot}"),
            group: "g".to_owned(),
        };
        if self.bug == Some(Bug::AgentForgets) {
            self.nodes[n].memory = Memory::default();
        }
        if self.bug == Some(Bug::BootstrapsAgain) && self.consul.record.is_none() {
            self.nodes[n].memory = Memory::default();
        }
        let mut random = Rng::new(self.rng.next());
        let memory = self.nodes[n].memory.clone();
        let step = Step::new(me, self.mix.policy.clone(), memory, self.millis(n), move || random.text());
        self.nodes[n].agent = Some(Agent {
            boot,
            step,
            paused: false,
            inbox: Vec::new(),
            adapter: Adapter::default(),
            call: 0,
            hand_over_after: 0,
            last: false,
            asking: 0,
            watchful: true,
            poll_at: 0,
            news: 0,
            told_at: 0,
            session: None,
            registered: None,
            peers: BTreeMap::new(),
            reason: None,
            asked: Stamp::default(),
        });
        self.tell(|| format!("n{} agent starts, boot {boot}", n + 1));
        self.ask(n, boot);
        self.keep_session(n, boot);
        self.keep_watching(n, boot);
        self.call_peers(n, boot);
        self.knock(n, boot);
    }

    /// Something arrived.
    pub(crate) fn agent_event(&mut self, n: usize, event: Event) {
        let now = self.millis(n);
        let Some(agent) = &mut self.nodes[n].agent else { return };
        agent.step.handle(now, event);
        self.drive(n);
    }

    /// What became of an effect.
    pub(crate) fn agent_done(&mut self, n: usize, done: Done) {
        let now = self.millis(n);
        let Some(agent) = &mut self.nodes[n].agent else { return };
        if agent.last {
            return self.cut_off_agent(n);
        }
        agent.step.done(now, done);
        self.drive(n);
    }

    /// Polls, carries out, tells the others.
    fn drive(&mut self, n: usize) {
        let (now, wall) = (self.millis(n), self.wall());
        let Some(agent) = &mut self.nodes[n].agent else { return };
        let boot = agent.boot;
        let poll = agent.step.poll(now, wall);
        agent.watchful = poll.watchful;
        if let Some(violation) = agent.step.take_violation() {
            self.fail(format!("n{}: {violation}", n + 1));
        }
        self.tell_reason(n);
        self.learn_peers(n);
        self.drains(n, boot);
        self.ask_proxies(n, boot);
        self.register(n, boot);
        self.spread_news(n, boot);
        let at = self.now + poll.revisit.since(now).max(1) * MS;
        self.poll_at(n, boot, at);
        if let Some(effect) = poll.effect {
            self.effect(n, boot, effect);
        }
    }

    fn poll_at(&mut self, n: usize, boot: u64, at: u64) {
        let now = self.now;
        let Some(agent) = self.agent(n, boot) else { return };
        if agent.poll_at > now && agent.poll_at <= at {
            return;
        }
        agent.poll_at = at;
        self.after(at - now, move |w| {
            if w.agent(n, boot).is_some_and(|a| a.poll_at == at) {
                w.at_agent(n, boot, move |w| w.drive(n));
            }
        });
    }

    fn tell_reason(&mut self, n: usize) {
        let now = self.now;
        let Some(agent) = &mut self.nodes[n].agent else { return };
        let reason = agent.step.reason();
        if agent.reason == Some(discriminant(reason)) {
            return;
        }
        agent.reason = Some(discriminant(reason));
        self.story.note(now, &[1, n as u64, reason.code().len() as u64]);
        self.story.tell(now, || format!("n{} {reason}", n + 1));
    }

    fn effect(&mut self, n: usize, boot: u64, effect: Effect) {
        let result = self.nodes[n].remembered;
        if !matches!(effect.what, What::Read | What::Engine(election::EngineOp::Start | election::EngineOp::Kill)) {
            let newer = effect.stamp >= result;
            self.check(if newer {
                Ok(())
            } else {
                Err(format!("n{} acts on record {} though it remembered {result} (invariant 10)", n + 1, effect.stamp))
            });
        }
        let now = self.now;
        self.story.note(now, &[2, n as u64, effect.stamp.epoch, effect.stamp.seq]);
        self.ambush_effect(n, boot);
        if !matches!(effect.what, What::Engine(election::EngineOp::Mark(_))) {
            self.count_action(n, boot);
        }
        match effect.what {
            What::Read => self.read(n, boot),
            What::Remember(memory) => self.remember(n, boot, memory),
            What::Submit(proposal) => self.submit(n, boot, proposal),
            What::Answer { outcome, command_index } => {
                self.at_consul(
                    n,
                    boot,
                    move |w| w.consul.answer(&outcome, command_index),
                    |applied| {
                        Done::Answered(match applied {
                            Some(true) => Written::Applied { index: 0 },
                            Some(false) => Written::Refused,
                            None => Written::Unknown,
                        })
                    },
                );
            }
            What::Engine(op) => {
                self.tell(|| format!("n{} does {}", n + 1, op.name()));
                self.engine_effect(n, boot, op);
            }
        }
    }

    fn remember(&mut self, n: usize, boot: u64, memory: Memory) {
        let delay = self.rng.range(300, 5_000);
        self.after(delay, move |w| {
            if w.agent(n, boot).is_none() {
                return;
            }
            let failed = w.rng.chance(w.mix.op_fails) || (w.nodes[n].disk.bad && w.rng.chance(500));
            if !failed {
                let before = std::mem::replace(&mut w.nodes[n].memory, memory.clone());
                w.nodes[n].unsynced = Some(before).filter(|_| w.bug == Some(Bug::MemoryNotSynced));
                w.nodes[n].remembered = w.nodes[n].remembered.max(memory.stamp);
            }
            let result = if failed { Err("disk error".to_owned()) } else { Ok(memory) };
            w.at_agent(n, boot, move |w| w.agent_done(n, Done::Remembered(result)));
        });
    }

    /// A call to Consul that is answered, or not.
    fn at_consul<T: 'static>(
        &mut self,
        n: usize,
        boot: u64,
        call: impl FnOnce(&mut World) -> T + 'static,
        done: impl FnOnce(Option<T>) -> Done + 'static,
    ) {
        let (there, back) = (self.delay() + 300, self.delay());
        self.after(there, move |w| {
            if !w.has_consul(n) {
                w.after(PATIENCE_US, move |w| w.at_agent(n, boot, move |w| w.agent_done(n, done(None))));
                return;
            }
            let answer = call(w);
            w.consul_changed();
            w.after(back, move |w| w.at_agent(n, boot, move |w| w.agent_done(n, done(Some(answer)))));
        });
    }

    fn read(&mut self, n: usize, boot: u64) {
        let began = self.millis(n);
        let look = |w: &mut World| w.consul.view();
        self.at_consul(n, boot, look, move |view| {
            Done::Read(view.map(|mut view| {
                view.read_at = Some(began);
                Box::new(view)
            }))
        });
    }

    /// A transaction: applied and answered, or lost on its way there, or on the way back, or late.
    fn submit(&mut self, n: usize, boot: u64, mut proposal: Box<Proposal>) {
        self.release_early(n, boot, &proposal);
        if let (Some(Bug::ForceNotRecorded), Some(before)) = (self.bug, &mut proposal.record.previous) {
            before.data_loss = None;
        }
        if let (Some(Bug::RenewsWithoutNonce), Some(stands)) = (self.bug, self.consul.truth())
            && only_renews(stands, &proposal)
        {
            proposal.record = stands.clone();
        }
        let paused = self.knows_of_a_pause(n, &proposal);
        self.check(paused);
        let stands = self.consul.truth().cloned();
        if self.bug == Some(Bug::RenewsInWords) && stands.is_some_and(|r| only_renews(&r, &proposal)) {
            let index = proposal.index;
            return self.at_agent(n, boot, move |w| {
                w.agent_done(n, Done::Submitted(proposal, Written::Applied { index }));
            });
        }
        let [before, after, late] = self.mix.txn;
        let fate = self.rng.range(0, 1_000);
        let unknown = move |w: &mut World, proposal: Box<Proposal>| {
            let written = match w.bug {
                Some(Bug::UnknownIsRefused) => Written::Refused,
                Some(Bug::UnknownIsApplied) => Written::Applied { index: proposal.index + 1 },
                Some(Bug::UnsealsEarly) if proposal.record.phase == Phase::Promoting => {
                    w.unseal(n, boot);
                    Written::Unknown
                }
                _ => Written::Unknown,
            };
            w.after(PATIENCE_US, move |w| {
                w.at_agent(n, boot, move |w| w.agent_done(n, Done::Submitted(proposal, written)));
            });
        };
        if self.hold.is_some_and(|hold| hold(&proposal)) {
            self.held.push((*proposal).clone());
            return unknown(self, proposal);
        }
        let there = self.delay() + 300;
        if fate < before {
            return unknown(self, proposal);
        }
        if fate < before + late {
            let delay = self.rng.range(0, LATE_TXN_US);
            let sent = proposal.clone();
            self.after(delay, move |w| {
                if !w.consul.outage {
                    w.apply(&sent);
                }
            });
            return unknown(self, proposal);
        }
        let answered = fate >= before + late + after;
        self.after(there, move |w| {
            if !w.reaches(n, w.consul_end()) || w.consul.outage {
                if w.consul.electing && w.reaches(n, w.consul_end()) && w.rng.chance(500) {
                    w.consul.handed_on.push((*proposal).clone());
                }
                return unknown(w, proposal);
            }
            let applied = w.apply(&proposal);
            if !answered || !w.reaches(w.consul_end(), n) {
                return unknown(w, proposal);
            }
            let written = applied.map_or(Written::Refused, |index| Written::Applied { index });
            let back = w.delay();
            w.after(back, move |w| w.at_agent(n, boot, move |w| w.agent_done(n, Done::Submitted(proposal, written))));
        });
    }

    pub(crate) fn apply(&mut self, proposal: &Proposal) -> Option<u64> {
        let before = self.consul.record.as_ref().map(|(r, _)| r.clone());
        let by_lock = self.bug == Some(Bug::LockIsTrusted) && self.consul.leader.is_none();
        let by_lock = by_lock && proposal.record.phase == Phase::Promoting;
        let index = self.consul.submit(proposal, by_lock || self.bug == Some(Bug::CasIsSet))?;
        if let Some(what) = self.consul.meddled.take() {
            self.fail(format!("Consul's data went back, and {what} (invariant 10)"));
        }
        self.record_changed(before.as_ref());
        self.consul_changed();
        Some(index)
    }

    /// Those who watch are told: soon, late, or not at all, and in any order.
    pub(crate) fn consul_changed(&mut self) {
        let view = self.consul.view();
        for n in 0..self.nodes.len() {
            if self.nodes[n].blind {
                continue;
            }
            let Some(boot) = self.nodes[n].agent.as_ref().map(|a| a.boot) else { continue };
            let late = self.rng.chance(self.mix.late_views);
            let delay = if late { self.rng.range(0, 1_900_000) } else { self.rng.range(800, 5_000) };
            let now = self.now;
            let Some(agent) = &mut self.nodes[n].agent else { continue };
            // One blocking query after the other: only a server that lags lets an answer overtake another.
            let at = if late { now + delay } else { agent.told_at.max(now + delay) };
            agent.told_at = if late { agent.told_at } else { at };
            let view = Box::new(view.clone());
            self.after(at - now, move |w| {
                if w.has_consul(n) && !w.nodes[n].blind {
                    w.at_agent(n, boot, move |w| w.agent_event(n, Event::Watched(view)));
                }
            });
        }
        self.tell_proxies();
    }

    fn keep_watching(&mut self, n: usize, boot: u64) {
        if self.agent(n, boot).is_none() {
            return;
        }
        let late = self.rng.chance(self.mix.late_views);
        if self.nodes[n].blind {
            return self.after(1_000_000, move |w| w.keep_watching(n, boot));
        }
        let event = match self.has_consul(n) {
            true if late => Event::Watched(Box::new(self.consul.past_view(self.rng.index(4)))),
            true => Event::Watched(Box::new(self.consul.view())),
            false => Event::ConsulLost,
        };
        self.at_agent(n, boot, move |w| w.agent_event(n, event));
        if self.has_consul(n) {
            let holding = self.holding();
            self.at_agent(n, boot, move |w| w.agent_event(n, holding));
        }
        let next = self.rng.range(1_000_000, 3_000_000);
        self.after(next, move |w| w.keep_watching(n, boot));
    }

    fn keep_session(&mut self, n: usize, boot: u64) {
        if self.agent(n, boot).is_none() {
            return;
        }
        let delay = self.rng.range(500, 3_000);
        self.after(delay, move |w| w.at_agent(n, boot, move |w| w.renew(n, boot)));
    }

    fn renew(&mut self, n: usize, boot: u64) {
        if !self.has_consul(n) {
            self.agent_event(n, Event::ConsulLost);
            return self.after(1_000_000, move |w| w.keep_session(n, boot));
        }
        // Consul ends a session some time between once and twice its time to live.
        let expires = self.now + SESSION_TTL_US + self.rng.range(0, SESSION_TTL_US + 2_000_000);
        let fresh = format!("session{}", self.number());
        let Some(session) = self.agent(n, boot).map(|a| a.session.clone()) else { return };
        if session.as_ref().is_some_and(|s| self.consul.renew(s, expires)) {
            return self.after(SESSION_TTL_US / 2, move |w| w.keep_session(n, boot));
        }
        if session.is_some() {
            self.agent_event(n, Event::Session(None));
        }
        self.consul.create_session(&fresh, expires);
        if let Some(agent) = self.agent(n, boot) {
            agent.session = Some(fresh.clone());
        }
        self.agent_event(n, Event::Session(Some(fresh)));
        self.after(SESSION_TTL_US / 2, move |w| w.keep_session(n, boot));
    }

    /// The member record follows what is known, written on change only.
    fn register(&mut self, n: usize, boot: u64) {
        let (keeps, kind) = (self.bug != Some(Bug::BootstrapsAgain), self.kind());
        let Some(agent) = self.agent(n, boot) else { return };
        let Some(session) = agent.session.clone() else { return };
        let me = agent.step.me();
        let role = agent.step.view().record.as_ref().map_or(Role::Spare, |r| r.role_of(&me.id));
        let incarnation = agent.step.engine().status().map(|st| st.incarnation.clone());
        let uid = agent.step.memory().uid.clone().filter(|_| keeps);
        let now_is = (session.clone(), incarnation.clone(), role, uid.is_some());
        if agent.registered.as_ref() == Some(&now_is) {
            return;
        }
        let member = Member {
            id: me.id.clone(),
            address: me.database.host.clone(),
            port: me.database.port,
            agent: format!("{}:7400", me.id),
            engine: kind.as_str().to_owned(),
            version: "1".to_owned(),
            databases: None,
            zone: None,
            role,
            incarnation,
            priority: me.priority,
            adopt: me.adopt,
            uid,
            boot: me.boot.clone(),
        };
        agent.registered = Some(now_is.clone());
        let delay = self.delay();
        self.after(delay, move |w| {
            if w.has_consul(n) && w.consul.put_member(&session, &member) {
                return w.consul_changed();
            }
            w.after(1_000_000, move |w| {
                if let Some(agent) = w.agent(n, boot).filter(|a| a.registered.as_ref() == Some(&now_is)) {
                    agent.registered = None;
                }
            });
        });
    }

    fn learn_peers(&mut self, n: usize) {
        let Some(agent) = &mut self.nodes[n].agent else { return };
        for id in agent.step.view().members.keys() {
            if let Some(peer) = index_of(id).filter(|peer| *peer != n) {
                agent.peers.entry(peer).or_default();
            }
        }
    }

    fn spread_news(&mut self, n: usize, boot: u64) {
        let Some(agent) = self.agent(n, boot) else { return };
        if agent.news == agent.step.news() {
            return;
        }
        agent.news = agent.step.news();
        let peers: Vec<usize> = agent.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.exchange(n, boot, peer));
    }

    fn call_peers(&mut self, n: usize, boot: u64) {
        if self.agent(n, boot).is_none() {
            return;
        }
        self.after(20 * MS, move |w| w.call_peers(n, boot));
        let now = self.now;
        let Some(agent) = self.agent(n, boot).filter(|a| !a.paused) else { return };
        let due: Vec<usize> =
            agent.peers.iter().filter(|(_, c)| c.calling == 0 && c.next <= now).map(|(peer, _)| *peer).collect();
        due.into_iter().for_each(|peer| self.exchange(n, boot, peer));
    }

    /// What arrives of a beat at that node, over a planted bug's wire.
    fn garbled(&self, mut beat: Beat) -> Beat {
        if let (Some(Bug::MarkersAlike), Engine::Up(status)) = (self.bug, &mut beat.engine)
            && let Some(marker) = &mut status.marker
        {
            marker.counter = 0;
        }
        beat
    }

    /// The planted bug's: back behind whoever was master, and sealed in words.
    fn unseal(&mut self, n: usize, boot: u64) {
        let master = self.master();
        let Some(run) = self.nodes[n].database.as_ref().filter(|p| !p.is_master() && master != n).map(|p| p.run) else {
            return;
        };
        self.replica_of(n, run, Some(master));
        if let Some(agent) = self.agent(n, boot) {
            agent.adapter.sealed_in_words = true;
        }
    }

    /// One exchange: this side's beat there, the other's back.
    fn exchange(&mut self, n: usize, boot: u64, peer: usize) {
        let (millis, call) = (self.millis(n), self.number());
        let everybody = self.bug == Some(Bug::OffersToEverybody);
        let Some(agent) = self.agent(n, boot) else { return };
        let beat = beat_to(agent, millis, peer, everybody);
        agent.peers.entry(peer).or_default().calling = call;
        self.after(PATIENCE_US, move |w| w.called(n, boot, peer, call, RETRY_US));
        if self.rng.chance(self.mix.drop) {
            return;
        }
        self.send(n, peer, move |w| {
            if !w.nodes[peer].up {
                return;
            }
            let Some(other) = w.nodes[peer].agent.as_ref().map(|a| a.boot) else {
                return w.send(peer, n, move |w| {
                    w.called(n, boot, peer, call, RETRY_US);
                    w.at_agent(n, boot, move |w| w.agent_event(n, Event::Agent(name(peer), Sighting::Refused)));
                });
            };
            w.at_agent(peer, other, move |w| w.called_by(peer, other, beat, n, boot, call));
        });
    }

    fn called_by(&mut self, n: usize, boot: u64, beat: Beat, caller: usize, caller_boot: u64, call: u64) {
        let millis = self.millis(n);
        let next = self.now + BEAT_EVERY_MS * MS;
        let everybody = self.bug == Some(Bug::OffersToEverybody);
        let Some(agent) = self.agent(n, boot) else { return };
        let mine = beat_to(agent, millis, caller, everybody);
        agent.peers.entry(caller).or_default().next = next;
        self.send(n, caller, move |w| {
            w.called(caller, caller_boot, n, call, BEAT_EVERY_MS * MS);
            w.at_agent(caller, caller_boot, move |w| {
                let mine = w.garbled(mine);
                w.agent_event(caller, Event::Beat(Box::new(mine)));
            });
        });
        let beat = self.garbled(beat);
        self.agent_event(n, Event::Beat(Box::new(beat)));
    }

    fn called(&mut self, n: usize, boot: u64, peer: usize, call: u64, next: u64) {
        let at = self.now + next;
        let Some(agent) = self.agent(n, boot) else { return };
        if let Some(known) = agent.peers.get_mut(&peer).filter(|c| c.calling == call) {
            *known = Call { calling: 0, next: at };
        }
    }

    /// Asks the database how it is.
    fn ask(&mut self, n: usize, boot: u64) {
        let question = self.number();
        let Some(agent) = self.agent(n, boot) else { return };
        if agent.paused {
            return self.after(20 * MS, move |w| w.ask(n, boot));
        }
        agent.asking = question;
        let Some(run) = self.nodes[n].database.as_ref().map(|p| p.run) else {
            let down = self.engine(n);
            return self.asked(n, boot, question, down);
        };
        self.after(PATIENCE_US, move |w| {
            let incarnation = w.nodes[n].database.as_ref().map(|p| p.incarnation.clone());
            w.asked(n, boot, question, Engine::Silent { since: Millis::default(), incarnation });
        });
        let delay = self.rng.range(100, 1_000);
        self.after(delay, move |w| {
            w.at_database(n, run, move |w| {
                let engine = w.engine(n);
                w.asked(n, boot, question, engine);
            });
        });
    }

    fn asked(&mut self, n: usize, boot: u64, question: u64, engine: Engine) {
        let Some(agent) = self.agent(n, boot).filter(|a| a.asking == question) else { return };
        agent.asking = 0;
        let next = if agent.watchful { ASK_EVERY_US.1 } else { ASK_EVERY_US.0 };
        self.at_agent(n, boot, move |w| w.agent_event(n, Event::Engine(engine)));
        self.after(next, move |w| w.ask(n, boot));
    }

    /// Knocks at the recorded master's database.
    fn knock(&mut self, n: usize, boot: u64) {
        let Some(agent) = self.agent(n, boot) else { return };
        let record = agent.step.view().record.as_ref();
        let target = record.and_then(|r| r.master.as_ref()).and_then(|m| index_of(&m.id)).filter(|m| *m != n);
        self.after(BEAT_EVERY_MS * MS / 2, move |w| w.knock(n, boot));
        let Some(target) = target.filter(|_| self.agent(n, boot).is_some_and(|a| !a.paused)) else { return };
        self.send(n, target, move |w| {
            if !w.nodes[target].up {
                return;
            }
            let heard = move |w: &mut World, sighting| {
                w.send(target, n, move |w| {
                    w.at_agent(n, boot, move |w| w.knocked(n, target, sighting));
                });
            };
            match w.nodes[target].database.as_ref().map(|p| p.run) {
                Some(run) => w.at_database(target, run, move |w| heard(w, Sighting::Heard)),
                None => heard(w, Sighting::Refused),
            }
        });
    }

    /// An answer that comes after the target has changed is nobody's.
    fn knocked(&mut self, n: usize, target: usize, sighting: Sighting) {
        let Some(agent) = &self.nodes[n].agent else { return };
        let record = agent.step.view().record.as_ref();
        if record.and_then(|r| r.master.as_ref()).is_some_and(|m| m.id == name(target)) {
            self.agent_event(n, Event::MasterDatabase(sighting));
        }
    }

    /// The agent ends; whatever was on its way to it is lost.
    pub(crate) fn kill_agent(&mut self, n: usize) {
        if let Some(agent) = self.nodes[n].agent.take() {
            self.tell(|| format!("n{} agent dies, boot {}", n + 1, agent.boot));
        }
    }

    /// What the record said of itself last, for checks.
    pub(crate) fn stamp(&self) -> Stamp {
        self.consul.record.as_ref().map(|(r, _)| r.stamp()).unwrap_or_default()
    }
}

/// What an agent sends another. `everybody` is the planted bug: an offer that it would make to any of the others.
fn beat_to(agent: &Agent, millis: Millis, to: usize, everybody: bool) -> Beat {
    let mut beat = agent.step.beat(millis, &name(to));
    if everybody && beat.offer.is_none() {
        beat.offer = agent.peers.keys().find_map(|other| agent.step.beat(millis, &name(*other)).offer);
    }
    beat
}

/// A transaction by which a restarted agent makes sure that nothing of its earlier run is under way.
fn only_renews(stands: &Record, p: &Proposal) -> bool {
    let same = (&p.record.replica, p.record.phase, p.record.epoch) == (&stands.replica, stands.phase, stands.epoch);
    same && p.take_leader.is_some()
}
