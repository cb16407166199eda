//! How a server is started whose last run did not end in an orderly way: with everything that is in its binary log, or
//! without what nobody has acknowledged.
//!
//! By default everything is kept: a master that was alone, and one of two that were both lost, may have acknowledged it.
//! Only once another is master of an active epoch is the tail known to have been acknowledged by nobody, and then it is
//! rolled back, so that this node can follow without being copied anew. While the record still names this node, with a hot
//! replica that is about to take over, a moment is waited.

use std::time::{Duration, Instant};

use election::{Memory, NodeId, Phase};

use super::files;
use crate::engine::setup::Setup;
use crate::memory::MemoryFile;

/// How long the start of a crashed master waits for its hot replica's takeover. One takes well below a second; a power cut
/// of the whole group takes this longer to come back.
const UNDECIDED_LIMIT: Duration = Duration::from_secs(2);

/// What is to be done with the tail of the binary log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// It stays.
    Keep,
    /// It goes, and is kept aside as that of this epoch.
    RollBack {
        /// The epoch this node was master of.
        epoch: u64,
    },
    /// Not known yet, and why.
    Undecided(String),
}

/// Decides by what this node has on disk.
pub(super) fn decide(setup: &Setup, undecided_since: Option<Instant>) -> Boot {
    if !files::ended_badly(&setup.server_folder()) {
        return Boot::Keep;
    }
    let Ok(memory) = MemoryFile::new(&setup.site.data_dir, &setup.group).load() else { return Boot::Keep };
    match judge(&memory, &NodeId(setup.site.node.clone())) {
        Boot::Undecided(_) if undecided_since.is_some_and(|at| at.elapsed() >= UNDECIDED_LIMIT) => Boot::Keep,
        boot => boot,
    }
}

/// What is known by this memory of this node, and nothing else.
pub fn judge(memory: &Memory, me: &NodeId) -> Boot {
    let (Some((epoch, _)), Some(record)) = (&memory.mastered, &memory.record) else { return Boot::Keep };
    let settled = matches!(record.phase, Phase::Active | Phase::Switching);
    let wait = |why: &str| Boot::Undecided(format!("a moment is waited for {why}"));
    if record.is_master(me) {
        let may_be_replaced = record.epoch == *epoch && record.replica.is_some();
        return if may_be_replaced { wait("the hot replica's takeover") } else { Boot::Keep };
    }
    if record.is_replica(me) || record.epoch <= *epoch {
        return Boot::Keep;
    }
    if settled { Boot::RollBack { epoch: *epoch } } else { wait("the new master to be open") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use election::documents::{Certificate, Master, RECORD_VERSION, Record, Replica, Writer};
    use election::{Incarnation, Lineage, Nonce, Position};

    fn record(epoch: u64, master: &str, replica: Option<&str>, phase: Phase) -> Record {
        let incarnation = Incarnation::from("i");
        let certificate = |incarnation: &Incarnation| Certificate {
            nonce: Nonce::from("n"),
            incarnation: incarnation.clone(),
            lineage: Lineage::from("l"),
            position: Position(1),
            fsync: true,
        };
        Record {
            v: RECORD_VERSION,
            group: "g".into(),
            uid: "u".into(),
            epoch,
            active_epoch: epoch,
            seq: 1,
            nonce: Nonce::from("n"),
            writer: Writer { node: NodeId::from(master), boot: "b".to_owned() },
            phase,
            master: Some(Master {
                id: NodeId::from(master),
                address: "h".to_owned(),
                port: 1,
                incarnation: incarnation.clone(),
            }),
            replica: replica.map(|id| Replica {
                id: NodeId::from(id),
                complete: true,
                certificate: certificate(&incarnation),
            }),
            previous: None,
            switchover: None,
            fsync: true,
        }
    }

    fn judged(mastered: Option<u64>, record: Record) -> Boot {
        let memory = Memory {
            mastered: mastered.map(|epoch| (epoch, Incarnation::from("i"))),
            record: Some(Box::new(record)),
            ..Memory::default()
        };
        judge(&memory, &NodeId::from("a"))
    }

    #[test]
    fn the_tail_goes_only_once_another_is_master_of_an_active_epoch() {
        let undecided = |boot: Boot| matches!(boot, Boot::Undecided(_));
        assert_eq!(judged(Some(4), record(5, "b", Some("c"), Phase::Active)), Boot::RollBack { epoch: 4 });
        assert!(undecided(judged(Some(4), record(5, "b", None, Phase::Promoting))));
        assert!(undecided(judged(Some(4), record(4, "a", Some("b"), Phase::Active))));
        assert!(undecided(judged(Some(4), record(4, "a", Some("b"), Phase::Switching))));
    }

    #[test]
    fn the_tail_stays_where_it_may_have_been_acknowledged() {
        for (mastered, record) in [
            (None, record(5, "b", Some("c"), Phase::Active)),
            (Some(4), record(4, "a", None, Phase::Active)),
            (Some(4), record(5, "a", None, Phase::Promoting)),
            (Some(4), record(5, "b", Some("a"), Phase::Active)),
            (Some(4), record(4, "b", None, Phase::Active)),
        ] {
            assert_eq!(judged(mastered, record.clone()), Boot::Keep, "{record:?}");
        }
    }
}
