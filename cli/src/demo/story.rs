//! What the demo says.

use super::acts::Act;
use crate::exit::Failure;
use crate::out::{Paint, lines, print, print_json, table};
use crate::page::{GroupStatus, Page};
use crate::rig::Rig;
use crate::verbs::status;
use config::Engine;
use election::NodeId;
use serde::Serialize;

/// The teller.
pub(super) struct Story {
    engine: Engine,
    paint: Paint,
}

/// The last line.
#[derive(Serialize)]
struct Figures<'a> {
    demo: &'a [Act],
    engine: &'static str,
}

impl Story {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, paint: Paint::for_stdout() }
    }

    /// What people call what the nodes run.
    pub(super) fn database(&self) -> &'static str {
        match self.engine {
            Engine::Redis => "Redis",
            Engine::Postgres => "PostgreSQL",
            Engine::Mariadb => "MariaDB",
        }
    }

    /// A line of the tale.
    pub(super) fn say(&self, text: &str) -> Result<(), Failure> {
        print(&format!("  {text}\n"))
    }

    pub(super) fn waiting(&self, text: &str) -> Result<(), Failure> {
        self.say(&self.paint.dim(text))
    }

    pub(super) fn strike(&self, text: &str) -> Result<(), Failure> {
        self.say(&self.paint.red(text))
    }

    pub(super) fn prologue(&self) -> Result<(), Failure> {
        print(&format!("{}\n", self.paint.bold("Understudy: the hot replica knows every line")))?;
        let (proxy, write) = match self.engine {
            Engine::Redis => ("speaks Redis", "writes a key"),
            Engine::Postgres => ("listens to what PostgreSQL says", "inserts a row"),
            Engine::Mariadb => ("carries bytes", "inserts a row"),
        };
        self.say(
            "On this machine, in a temporary folder and on free ports: one Consul, three nodes, each an agent with a",
        )?;
        self.say(&format!(
            "{}, one proxy that {proxy}, and one client that {write} every 5 ms through it.",
            self.database()
        ))?;
        self.waiting("Starting them; the first master is elected, the others copy its data …")
    }

    pub(super) fn stage(&self, rig: &Rig, status: &GroupStatus) -> Result<(), Failure> {
        print("\n")?;
        print(&status::text(&Page { groups: vec![status.clone()] }, self.paint))?;
        print("\n")?;
        self.say(&format!("client -> proxy {} -> the master, whoever that is", rig.proxy_addr()))?;
        self.say(&format!("Consul is at {}: `understudy status --consul {0}` works too.", rig.consul_address()))
    }

    pub(super) fn act(&self, number: usize, title: &str) -> Result<(), Failure> {
        print(&format!("\n{}\n", self.paint.bold(&format!("Act {number}: {title}"))))
    }

    pub(super) fn cast(&self, status: &GroupStatus) -> Result<(), Failure> {
        let (master, replica) = (status.active_master().unwrap_or("nobody"), status.hot_replica().unwrap_or("nobody"));
        let others = status.members.iter().map(|member| &member.id).map(NodeId::as_str);
        let spares: Vec<&str> = others.filter(|id| *id != master && *id != replica).collect();
        self.say(&format!(
            "Master: {}. Hot replica, with every acknowledged write: {}. Spare: {}.",
            self.paint.green(master),
            self.paint.green(replica),
            spares.join(", ")
        ))
    }

    pub(super) fn taken_over(&self, master: &str, epoch: u64) -> Result<(), Failure> {
        self.say(&format!("{} goes on as master, in epoch {epoch}.", self.paint.green(master)))
    }

    pub(super) fn noticed(&self, act: &Act) -> Result<(), Failure> {
        let lost =
            if act.lost == 0 { self.paint.green("none lost") } else { self.paint.red(&format!("{} LOST", act.lost)) };
        self.say(&format!(
            "The client could not write for {}. Of {} acknowledged writes, {lost}.",
            self.paint.bold(&format!("{:.1} ms", act.outage_ms)),
            act.acked
        ))
    }

    pub(super) fn epilogue(&self, acts: &[Act]) -> Result<(), Failure> {
        let mut rows = table(&["FAULT", "WRITE OUTAGE", "WRITES ACKNOWLEDGED", "WRITES LOST"]);
        for act in acts {
            let outage = format!("{:.1} ms", act.outage_ms);
            rows.add_row([act.fault.to_owned(), outage, act.acked.to_string(), act.lost.to_string()]);
        }
        print(&format!("\n{}\n{}\n", self.paint.bold("What the client noticed"), lines(rows)))?;
        self.waiting("Everything that was started is ended.")?;
        print_json(&Figures { demo: acts, engine: self.engine.as_str() })
    }
}
