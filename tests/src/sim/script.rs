//! Scenarios as text: commands, and below each group of them what came of it. See `tests/scenarios/`.
//!
//! `a` is the master of the freshly formed group, `b` its hot replica, the others follow. A block ends with `----`; the
//! lines from there to the next empty one are what happened, as the agents and the record said it. How a group forms is
//! told where it is begun with `bootstrap` instead of `group`.

use super::bugs::Bug;
use super::mix::Mix;
use super::process::{LinkState, Process, Role};
use super::rng::Rng;
use super::world::World;
use election::{Command, CommandOp, Durability, Phase, Policy, Proposal, Reads, Record, WithoutReplica};

/// The group has settled when it served for so long, or after [`SETTLE_LIMIT_US`] as it is then.
const SETTLED_US: u64 = 2_000_000;

/// A session's end, a copy and a certification fit into it.
const SETTLE_LIMIT_US: u64 = 45_000_000;

/// An agent that a cut has ended is started again after this.
const RESTART_US: u64 = 500_000;

/// What a replay of a scenario's commands told, block by block, and how many actions there were to cut it after.
pub struct Played {
    /// The answers, in the order of the blocks.
    pub answers: Vec<String>,
    /// The agents' actions after the group was formed, but for the marker's.
    pub actions: u64,
}

struct Script {
    w: World,
    /// The node that each letter stands for.
    letters: Vec<usize>,
    told: usize,
}

/// Plays the blocks of commands; with `cut`, the agent that did that action ends right after it, and at the end, every
/// fault healed, the group has to serve or to say why not.
///
/// # Errors
/// A command that is not understood, or what was violated.
pub fn perform(blocks: &[Vec<String>], bug: Option<Bug>, cut: Option<u64>) -> Result<Played, String> {
    let mut script: Option<Script> = None;
    let mut answers = Vec::new();
    for command in blocks.iter().flatten().filter(|c| begins(c)) {
        script = Some(Script::formed(command, bug)?);
    }
    let mut script = script.ok_or("the first command must be `group …` or `bootstrap …`")?;
    script.w.cut_after = cut.map(|number| script.w.actions + number);
    let before = script.w.actions;
    for block in blocks {
        for command in block {
            script.obey(command)?;
            script.w.failure.clone().map_or(Ok(()), Err)?;
        }
        answers.push(script.answer(block));
    }
    if cut.is_some() {
        script.ends_well()?;
    }
    script.w.nothing_is_lost()?;
    Ok(Played { answers, actions: script.w.actions - before })
}

fn begins(command: &str) -> bool {
    command.starts_with("group ") || command.starts_with("bootstrap ")
}

impl Script {
    /// `group a b c [block] [async] [durable-reads] [fsync] [postgres] [mariadb]`
    fn formed(command: &str, bug: Option<Bug>) -> Result<Self, String> {
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        let nodes = words.iter().take_while(|word| word.len() == 1).count();
        let mut policy = Policy::default();
        let mut engine = config::Engine::Redis;
        for word in &words[nodes..] {
            match *word {
                "postgres" => engine = config::Engine::Postgres,
                "mariadb" => engine = config::Engine::Mariadb,
                "block" => policy.without_replica = WithoutReplica::Block,
                "async" => policy.durability = Durability::Async,
                "durable-reads" => policy.reads = Reads::Durable,
                "fsync" => policy.fsync = true,
                other => {
                    return Err(format!(
                        "`{other}`: a group is block, async, durable-reads, fsync, postgres or mariadb"
                    ));
                }
            }
        }
        let mut rng = Rng::new(1);
        let mix = Mix::calm_group(nodes, policy).with(engine, &mut rng);
        let mut w = World::of(rng, mix, bug, true, "scenario");
        (0..nodes).for_each(|n| w.after(0, move |w| w.start_agent(n)));
        (0..w.mix.proxies.len()).for_each(|proxy| w.after(500_000, move |w| w.client(proxy)));
        w.after(0, World::expire_sessions);
        let mut script = Self { w, letters: Vec::new(), told: 0 };
        script.settle();
        let (master, replica) = (script.w.master(), script.w.replica());
        script.letters = vec![master];
        script.letters.extend((nodes > 1).then_some(replica));
        let others: Vec<usize> = (0..nodes).filter(|n| !script.letters.contains(n)).collect();
        script.letters.extend(others);
        // The first line is the seed's.
        script.told = if command.starts_with("bootstrap") { 1 } else { script.w.story.lines().len() };
        Ok(script)
    }

    fn pass(&mut self, us: u64) {
        let end = self.w.now + us;
        while self.w.step(end) {}
        self.w.now = self.w.now.max(end);
    }

    fn settle(&mut self) {
        let (limit, mut since) = (self.w.now + SETTLE_LIMIT_US, self.w.now);
        while self.w.now < limit && self.w.failure.is_none() && self.w.now < since + SETTLED_US {
            self.pass(100_000);
            if !(self.w.attended() && self.w.serves_since(self.w.now.saturating_sub(300_000))) {
                since = self.w.now;
            }
        }
    }

    fn node(&self, letter: &str) -> Result<usize, String> {
        let index = letter.bytes().next().filter(|_| letter.len() == 1).and_then(|b| b.checked_sub(b'a'));
        let found = index.and_then(|i| self.letters.get(usize::from(i)));
        found.copied().ok_or_else(|| format!("`{letter}` is no node of this group"))
    }

    /// A node, Consul, or the proxies.
    fn ends(&self, word: &str) -> Result<Vec<usize>, String> {
        match word {
            "consul" => Ok(vec![self.w.consul_end()]),
            "proxies" => Ok((0..self.w.proxies.len()).map(|p| self.w.proxy_end(p)).collect()),
            "everybody" => Ok((0..self.w.cut.len()).collect()),
            node => Ok(vec![self.node(node)?]),
        }
    }

    fn obey(&mut self, command: &str) -> Result<(), String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["group" | "bootstrap", ..] => {}
            ["settle"] => self.settle(),
            ["advance", time] => self.pass(micros(time)?),
            ["until", what @ ("copying" | "copied"), node] => self.until_copies(what, node)?,
            ["until", what @ ..] => self.until(&what.join(" "))?,
            ["cut", a, way @ ("from" | "to"), b] => self.cut(a, b, *way == "from", true)?,
            ["join", a, "and", b] => self.cut(a, b, true, false)?,
            ["consul", what @ ..] => self.consul(what)?,
            ["restore", "record"] => drop(self.w.restore_record()),
            ["pause", "group"] => drop(self.w.pause_group_for_good()),
            ["resume", "group"] => self.w.resume_group(),
            ["switchover"] => self.ask(CommandOp::Switchover, None)?,
            ["switchover", "to", node] => self.ask(CommandOp::Switchover, Some(node))?,
            ["failover", "to", node] => self.ask(CommandOp::Failover, Some(node))?,
            ["reinit", node] => self.ask(CommandOp::Reinit, Some(node))?,
            ["drain", node] => self.ask(CommandOp::Drain, Some(node))?,
            ["flush"] => self.w.flush_all(),
            ["proxies", what @ ("deaf" | "listen")] => self.w.blind_proxies = *what == "deaf",
            ["hold", what] => self.w.hold = Some(held(what)?),
            ["apply", "held"] => self.apply_held(),
            ["lose", "held"] => (self.w.hold, self.w.held) = (None, Vec::new()),
            [verb, what, node] => {
                let n = self.node(node)?;
                self.one(verb, what, n).ok_or_else(|| format!("`{command}` is no command"))?;
            }
            _ => return Err(format!("`{command}` is no command")),
        }
        Ok(())
    }

    /// What happens to one node.
    fn one(&mut self, verb: &str, what: &str, n: usize) -> Option<()> {
        let w = &mut self.w;
        match (verb, what) {
            ("kill", "redis" | "database") => w.kill_database(n, "SIGKILL"),
            ("kill", "agent") => w.kill_agent(n),
            ("kill", "node") => {
                w.kill_agent(n);
                w.kill_database(n, "SIGKILL");
            }
            ("start", "agent") => w.start_agent(n),
            ("terminate", "agent") => w.dismiss(n),
            ("interrupt", "agent") => w.interrupt(n),
            ("twin", "agent") => w.start_second(n),
            // The longest that `everysec` may lag.
            ("power", "off") => w.cut_power_with(n, super::data::FSYNC_LAG_US),
            ("power", "on") => w.power_on(n),
            ("stop", "redis" | "database") => w.stop(n, false, true),
            ("stop", "agent") => w.stop(n, true, false),
            ("stop", "node") => w.stop(n, true, true),
            ("wake", "node") => w.wake(n),
            ("break", "link") => w.break_link(n),
            ("fill", "disk") => w.nodes[n].disk.bad = true,
            ("free", "disk") => w.nodes[n].disk.bad = false,
            ("end", "session") => {
                if let Some(session) = w.nodes[n].agent.as_ref().and_then(|a| a.session.clone()) {
                    w.consul.end_session(&session);
                }
            }
            ("deaf", "agent") => w.nodes[n].blind = true,
            ("listen", "agent") => {
                w.nodes[n].blind = false;
                w.consul_changed();
            }
            _ => return None,
        }
        Some(())
    }

    fn cut(&mut self, a: &str, b: &str, both: bool, cut: bool) -> Result<(), String> {
        for a in self.ends(a)? {
            for b in self.ends(b)? {
                if a != b {
                    self.w.cut[a][b] = cut;
                    self.w.cut[b][a] = if both { cut } else { self.w.cut[b][a] };
                }
            }
        }
        Ok(())
    }

    fn consul(&mut self, what: &[&str]) -> Result<(), String> {
        match what {
            ["away"] => self.w.consul.outage = true,
            ["back"] => self.w.consul_returns(),
            ["leader", "dies"] => self.w.consul_leader_dies(),
            ["loses", "the", "record"] => drop(self.w.consul.wipe(false)),
            ["loses", "everything"] => drop(self.w.consul.wipe(true)),
            ["goes", "back"] => drop(self.w.consul.roll_back(0)),
            other => return Err(format!("`consul {}` is no command", other.join(" "))),
        }
        self.w.consul_changed();
        Ok(())
    }

    fn ask(&mut self, op: CommandOp, target: Option<&str>) -> Result<(), String> {
        let target = target.map(|letter| self.node(letter)).transpose()?.map(super::world::name);
        let request = Command { op, ..self.w.request(target) };
        if self.w.ask_group(request) { Ok(()) } else { Err("another request waits".to_owned()) }
    }

    fn apply_held(&mut self) {
        self.w.hold = None;
        for proposal in std::mem::take(&mut self.w.held) {
            let applied = self.w.apply(&proposal).is_some();
            let stamp = proposal.record.stamp();
            self.w.tell(|| {
                format!("record {stamp} that was under way is {}", if applied { "applied" } else { "refused" })
            });
        }
    }

    /// Goes on to the very moment.
    fn until(&mut self, what: &str) -> Result<(), String> {
        let holds: fn(&World) -> bool = match what {
            "promoting" => |w| record(w).is_some_and(|r| r.phase == Phase::Promoting),
            "active" => |w| record(w).is_some_and(|r| r.phase == Phase::Active),
            "alone" => |w| record(w).is_some_and(|r| r.phase == Phase::Active && r.replica.is_none()),
            "certified" => World::attended,
            "held" => |w| !w.held.is_empty(),
            other => return Err(format!("`until {other}`: promoting, active, alone, certified or held")),
        };
        self.go_on(what, holds)
    }

    /// A copy of another's data has begun to arrive, or is loaded and not on the disk yet.
    fn until_copies(&mut self, what: &str, node: &str) -> Result<(), String> {
        let (n, copied) = (self.node(node)?, what == "copied");
        self.go_on(what, |w| {
            let Some(Process { role: Role::Follows(up), persisted, .. }) = &w.nodes[n].database else { return false };
            match up.state {
                LinkState::Online => copied && !persisted,
                LinkState::Transfer | LinkState::Load => !copied,
                LinkState::Connecting => false,
            }
        })
    }

    fn go_on(&mut self, what: &str, holds: impl Fn(&World) -> bool) -> Result<(), String> {
        let end = self.w.now + SETTLE_LIMIT_US;
        while !holds(&self.w) {
            if !self.w.step(end) {
                // With an agent that was cut off this step need not come about.
                return if self.w.cut_after.is_some() { Ok(()) } else { Err(format!("`until {what}` does not come")) };
            }
        }
        Ok(())
    }

    /// What was told since the last answer, and, where the group was let settle, how it stands.
    fn answer(&mut self, block: &[String]) -> String {
        let lines = &self.w.story.lines()[self.told..];
        let mut answer: Vec<String> = Vec::new();
        for line in lines.iter().filter_map(|line| self.plain(line)) {
            if answer.last() != Some(&line) {
                answer.push(line);
            }
        }
        self.told = self.w.story.lines().len();
        if block.last().is_some_and(|command| command == "settle" || begins(command)) {
            answer.push(self.standing());
        }
        answer.join("\n")
    }

    /// A line of the story without what only machines want: times, runs, and what every record brings with it.
    fn plain(&self, line: &str) -> Option<String> {
        const NOISE: [&str; 8] = [
            "remembering record",
            "bringing the master's",
            " copies from ",
            "asks for a",
            "waiting for the master's",
            "raising the marker",
            "setting the password",
            " starts, run ",
        ];
        let line = line.split_once(" ms  ").map_or(line, |(_, rest)| rest);
        let carries_out = line.split(' ').nth(1) == Some("does");
        if carries_out || NOISE.iter().any(|noise| line.contains(noise)) {
            return None;
        }
        let mut out = String::new();
        for word in line.split(' ') {
            let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let drawn = bare.len() == 16 && bare.bytes().all(|b| b.is_ascii_hexdigit());
            if word.starts_with("(n") && word.contains("-run") {
                out = out.trim_end().to_owned();
                out.push_str(word.trim_start_matches(|c| c != ')').trim_start_matches(')'));
            } else if drawn || bare.contains("-run") || line.contains(&format!("{word} ms")) {
                out.push_str(&word.replace(bare, "…"));
            } else {
                out.push_str(&self.lettered(word));
            }
            out.push(' ');
        }
        let out = out.trim_end();
        Some(out.split_once(", boot ").map_or(out, |(before, _)| before).to_owned())
    }

    fn lettered(&self, word: &str) -> String {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).trim_end_matches("'s");
        let node = bare.strip_prefix('n').and_then(|n| n.parse::<usize>().ok());
        let letter = node.and_then(|n| self.letters.iter().position(|known| known + 1 == n));
        match letter.and_then(|at| u8::try_from(at).ok()) {
            Some(at) => word.replace(bare, &char::from(b'a' + at).to_string()),
            None => word.to_owned(),
        }
    }

    /// Who is what, and whether clients are served.
    fn standing(&self) -> String {
        let Some(record) = self.w.consul.truth() else { return "no group".to_owned() };
        let role = |at: usize| {
            let n = self.letters[at];
            let id = super::world::name(n);
            let letter = char::from(b'a' + u8::try_from(at).unwrap_or_default());
            format!(
                "{letter} {}",
                match record.role_of(&id) {
                    election::Role::Master => "master",
                    election::Role::Replica => "hot replica",
                    election::Role::Spare => "spare",
                }
            )
        };
        let roles: Vec<String> = (0..self.letters.len()).map(role).collect();
        let served = if self.w.serves_since(self.w.now.saturating_sub(300_000)) { "serves" } else { "DOES NOT SERVE" };
        format!("= epoch {}: {}; {served}", record.epoch, roles.join(", "))
    }

    fn ends_well(&mut self) -> Result<(), String> {
        self.w.cut_after = None;
        (self.w.hold, self.w.held, self.w.blind_proxies) = (None, Vec::new(), false);
        self.w.nodes.iter_mut().for_each(|node| node.blind = false);
        self.w.heal();
        let end = self.w.now + super::RECOVERED_US;
        while self.w.now < end && self.w.failure.is_none() {
            self.pass(500_000);
            if self.w.consul.lost.is_some() {
                self.w.restore_record();
            }
            if self.w.serves_since(self.w.now.saturating_sub(400_000)) && self.w.attended() {
                return Ok(());
            }
        }
        self.w.failure.clone().map_or(Ok(()), Err)?;
        if self.w.excuse().is_some() { Ok(()) } else { Err(self.w.standstill()) }
    }
}

impl World {
    /// Counts an agent's action; the one that a scenario is cut after is its agent's last.
    pub(crate) fn count_action(&mut self, n: usize, boot: u64) {
        self.actions += 1;
        if self.cut_after != Some(self.actions) {
            return;
        }
        if let Some(agent) = self.agent(n, boot) {
            agent.last = true;
        }
    }

    /// The cut: what became of the action reaches nobody.
    pub(crate) fn cut_off_agent(&mut self, n: usize) {
        self.kill_agent(n);
        self.after(RESTART_US, move |w| w.start_agent(n));
    }
}

fn record(w: &World) -> Option<&Record> {
    w.consul.record.as_ref().map(|(r, _)| r)
}

fn held(what: &str) -> Result<fn(&Proposal) -> bool, String> {
    Ok(match what {
        "certifications" => |p| p.record.replica.is_some(),
        "drops" => |p| p.record.replica.is_none() && p.record.phase == Phase::Active,
        "takeovers" => |p| p.record.phase == Phase::Promoting,
        other => return Err(format!("`hold {other}`: certifications, drops or takeovers")),
    })
}

fn micros(time: &str) -> Result<u64, String> {
    let parsed = match time.strip_suffix("ms") {
        Some(ms) => ms.parse::<u64>().map(|ms| ms * 1_000),
        None => time.trim_end_matches('s').parse::<u64>().map(|s| s * 1_000_000),
    };
    parsed.map_err(|_| format!("`{time}` is no time: 300ms, 2s"))
}
