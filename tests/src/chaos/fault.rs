//! What can befall a group.

use super::stage::Stage;
use crate::real::Cast;
use crate::sim::rng::Rng;
use anyhow::Result;
use clap::ValueEnum;

/// One kind of fault. All are undone by [`Stage::heal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// SIGKILL of a database.
    KillDatabase,
    /// SIGKILL of an agent; its database lives on.
    KillAgent,
    /// SIGKILL of agent and database.
    KillNode,
    /// SIGSTOP of a database, woken while clients are still attached.
    FreezeDatabase,
    /// SIGSTOP of an agent.
    FreezeAgent,
    /// SIGSTOP of agent and database.
    FreezeNode,
    /// A planned switchover.
    Switchover,
    /// A node is cut off from all others.
    Isolate,
    /// All machines fall into two halves, drawn at random.
    Split,
    /// What a machine sends reaches some others no more; what they send reaches it.
    OneWay,
    /// A node or proxy is cut off from Consul.
    CutConsul,
    /// SIGKILL of Consul's leader.
    ConsulLeader,
    /// SIGKILL of all of Consul.
    ConsulAway,
    /// A node's disk is full.
    FullDisk,
    /// SIGKILL of every database, agent and server of Consul at once.
    PowerCut,
}

impl Fault {
    /// All kinds.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Those that every group of three survives by a failover.
    pub fn failovers() -> &'static [Self] {
        &[Fault::KillDatabase, Fault::FreezeNode, Fault::FreezeDatabase, Fault::Switchover]
    }

    /// What it is called on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Brings it about; says what was done. A database or agent that is down already cannot be killed again: no error.
    ///
    /// # Errors
    /// When the network or a disk cannot be worked on, or the switchover's command cannot be started.
    pub(crate) async fn strike(self, stage: &mut Stage<'_>, cast: &Cast, rng: &mut Rng) -> Result<String> {
        let name = self.name();
        if let Some(told) = self.strike_all(stage, rng).await? {
            return Ok(format!("{name}{told}"));
        }
        let (node, role) = target(cast, rng);
        match self {
            Fault::KillDatabase => drop(stage.rig.kill_database(&node)),
            Fault::KillAgent => drop(stage.rig.kill_agent(&node)),
            Fault::KillNode => {
                drop(stage.rig.kill_database(&node));
                drop(stage.rig.kill_agent(&node));
            }
            Fault::FreezeDatabase => drop(stage.rig.stop_database(&node)),
            Fault::FreezeAgent => drop(stage.rig.stop_agent(&node)),
            Fault::FreezeNode => {
                drop(stage.rig.stop_database(&node));
                drop(stage.rig.stop_agent(&node));
            }
            Fault::FullDisk => stage.disk(&node)?.fill()?,
            Fault::Isolate => {
                let others: Vec<&str> = stage.machines().into_iter().filter(|other| *other != node).collect();
                stage.net.cut(&[&node], &others)?;
            }
            _ => {}
        }
        Ok(format!("{name} {node} ({role})"))
    }

    /// Those that concern no single node.
    async fn strike_all(self, stage: &mut Stage<'_>, rng: &mut Rng) -> Result<Option<String>> {
        Ok(Some(match self {
            Fault::Switchover => {
                stage.ask_switchover()?;
                String::new()
            }
            Fault::ConsulLeader => match stage.rig.kill_consul_leader().await {
                Some(server) => format!(" {server}"),
                None => " (nobody led)".to_owned(),
            },
            Fault::ConsulAway => {
                stage.rig.kill_consul();
                String::new()
            }
            Fault::PowerCut => {
                for node in stage.rig.node_names() {
                    drop(stage.rig.kill_database(&node));
                    drop(stage.rig.kill_agent(&node));
                }
                stage.rig.kill_consul();
                String::new()
            }
            Fault::Split => {
                let (one, other): (Vec<&str>, Vec<&str>) = stage.machines().into_iter().partition(|_| rng.chance(500));
                stage.net.cut(&one, &other)?;
                format!(" {} | {}", one.join(" "), other.join(" "))
            }
            Fault::OneWay => {
                let machines = stage.machines();
                let from = machines[rng.index(machines.len())];
                let to: Vec<&str> = machines.iter().copied().filter(|m| *m != from && rng.chance(600)).collect();
                to.iter().try_for_each(|to| stage.net.cut_one_way(from, to))?;
                format!(" {from} -> {}", to.join(" "))
            }
            Fault::CutConsul => {
                let machines = stage.machines();
                let (consul, others): (Vec<&str>, Vec<&str>) =
                    machines.into_iter().partition(|machine| machine.starts_with("consul"));
                let victim = others[rng.index(others.len())];
                stage.net.cut(&[victim], &consul)?;
                format!(" {victim}")
            }
            _ => return Ok(None),
        }))
    }
}

/// Mostly the master, else the hot replica or a spare.
fn target(cast: &Cast, rng: &mut Rng) -> (String, &'static str) {
    match rng.range(0, 10) {
        0..6 => (cast.master.clone(), "master"),
        6..9 => (cast.hot.clone(), "hot replica"),
        _ => cast.spares.first().map_or((cast.hot.clone(), "hot replica"), |spare| (spare.clone(), "spare")),
    }
}
