//! What an instance says of itself to people and load balancers.

use crate::api::InstanceStatus;
use crate::instance::role;
use crate::step::Step;
use election::{Address, Durability, Engine, EngineRole, Millis, NodeId, Phase, Record, Role, Status, certificate};

/// The instance's part of `/status`.
pub(crate) fn instance(step: &Step, now: Millis, engine: &'static str) -> InstanceStatus {
    let record = step.view().record.clone();
    let me = step.me();
    let status = step.engine().status();
    let behind = behind(step, now, engine);
    InstanceStatus {
        group: me.group.clone(),
        role: role(step),
        epoch: record.as_ref().map_or(0, |r| r.epoch),
        phase: record.as_ref().map(|r| r.phase),
        engine: engine.to_owned(),
        version: status.map(|st| st.version.clone()).unwrap_or_default(),
        address: me.database.host.clone(),
        port: me.database.port,
        zone: me.zone.clone(),
        priority: me.priority,
        position: status.map(|st| st.position),
        lag_bytes: behind.lag,
        place: status.and_then(|st| st.shown.position.clone().or_else(|| Some(st.position.to_string()))),
        behind_bytes: behind.bytes,
        behind_transactions: behind.transactions,
        copying: status.and_then(|st| st.shown.copying),
        healthy: is_healthy(step),
        reason: step.reason().to_string(),
        reason_code: step.reason().code(),
        standing: step.reason().standing(),
        consul_reachable: step.view().reachable,
        policy: step.policy().clone(),
        max_lag: step.policy().max_lag,
        database: step.engine().clone(),
        remembered: step.memory().record.as_deref().cloned(),
        caveats: caveats(step, engine),
        record,
    }
}

/// How far a copy is behind.
#[derive(Debug, Default)]
struct Behind {
    /// In the unit of the position.
    lag: Option<u64>,
    bytes: Option<u64>,
    transactions: Option<u64>,
}

/// What lies between the master's last beat and this copy, when both belong to one history.
fn behind(step: &Step, now: Millis, engine: &str) -> Behind {
    let lag = lag(step, now);
    if engine != config::Engine::Mariadb.as_str() {
        return Behind { lag, bytes: lag, transactions: None };
    }
    Behind { lag, bytes: lag.and_then(|lag| log_lag(step, lag)), transactions: lag }
}

fn lag(step: &Step, now: Millis) -> Option<u64> {
    let mine = step.engine().status()?;
    let record = step.view().record.as_ref()?;
    let master = record.master.as_ref()?;
    if master.id == step.me().id {
        return Some(0);
    }
    let peer = step.peer(&master.id).filter(|p| now.since(p.heard) < step.policy().detect_after.max(1_000))?;
    let theirs = peer.status().filter(|st| st.lineage == mine.lineage)?;
    Some(theirs.position.0.saturating_sub(mine.position.0))
}

/// The bytes that this copy has not received: of the master's log, or of the hot replica's and what that lacks itself. Each
/// log holds the same transactions in other places. Who lacks no transaction lacks no bytes.
fn log_lag(step: &Step, transactions: u64) -> Option<u64> {
    if transactions == 0 {
        return Some(0);
    }
    let record = step.view().record.as_ref()?;
    let at = |id: &NodeId| step.peer(id).and_then(|peer| Some((&peer.beat.database, peer.status()?)));
    let hot = record.replica.as_ref().and_then(|replica| at(&replica.id));
    lacks(step.engine().status()?, at(&record.master.as_ref()?.id)?, hot)
}

/// See [`log_lag`].
fn lacks(mine: &Status, master: (&Address, &Status), hot: Option<(&Address, &Status)>) -> Option<u64> {
    let of = |copy: &Status, (address, source): (&Address, &Status)| {
        let received = copy.shown.received.as_ref().filter(|_| copy.follows(address))?;
        source.shown.log.as_ref()?.bytes_since(received)
    };
    of(mine, master).or_else(|| of(mine, hot?)?.checked_add(of(hot?.1, master)?))
}

/// The database answers and is what the record says.
pub(crate) fn is_healthy(step: &Step) -> bool {
    let (Some(record), Engine::Up(status)) = (&step.view().record, step.engine()) else { return false };
    match role(step) {
        Some(Role::Master) => is_open_master(record, status),
        Some(Role::Replica) => {
            record.replica.as_ref().is_some_and(|r| certificate::check(record, r, status).is_ok()) && follows(status)
        }
        Some(Role::Spare) => follows(status),
        None => false,
    }
}

/// Whether clients may be sent there to write.
fn is_open_master(record: &Record, status: &Status) -> bool {
    let same_run = record.master.as_ref().is_some_and(|m| m.incarnation == status.incarnation);
    same_run && status.is_master() && status.open && matches!(record.phase, Phase::Active | Phase::Switching)
}

fn follows(status: &Status) -> bool {
    status.is_whole() && matches!(status.role, EngineRole::Follows { link_up: true, .. })
}

/// What a user should know that is not a fault.
fn caveats(step: &Step, engine: &str) -> Vec<String> {
    if role(step) != Some(Role::Master) {
        return Vec::new();
    }
    let what = match step.policy().durability {
        Durability::Sync if engine != config::Engine::Redis.as_str() => {
            "a commit whose wait for the hot replica is cancelled (KILL QUERY, a cancel request) is answered although only \
             the master has it"
        }
        Durability::Sync => {
            "clients in tcp mode: writes acknowledged in the last milliseconds before the master dies may be lost; a redis \
             listener acknowledges none before the hot replica has it"
        }
        Durability::Async => "async group: writes that the hot replica has not received are lost with the master",
    };
    let replica = step.view().record.as_ref().and_then(|r| r.replica.as_ref());
    let waits = step.policy().is_sync() && step.policy().fsync && replica.is_some_and(|r| !r.certificate.fsync);
    let not_yet = waits.then(|| "fsync is not in force yet: not both disks have said that they keep up".to_owned());
    std::iter::once(what.to_owned()).chain(not_yet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use election::{Incarnation, Lineage, LogPlace, Position, Shown};

    /// One whose log ends here, and who has received so much of another's.
    fn status(log: u64, received: Option<(&Address, u64)>) -> Status {
        let place = |offset| LogPlace { file: 1, offset, before: Vec::new() };
        let role = received.map_or(EngineRole::Master, |(source, _)| EngineRole::Follows {
            source: source.clone(),
            link_up: true,
            syncing: false,
            channel: None,
        });
        Status {
            incarnation: Incarnation::default(),
            version: String::new(),
            role,
            loading: false,
            empty: false,
            persisted: true,
            disk_ok: true,
            kept: None,
            lineage: Lineage::from("l"),
            position: Position::default(),
            marker: None,
            marked_at: None,
            open: false,
            guard: false,
            fsync: true,
            need: false,
            quiesced: false,
            channel: None,
            replicas: Vec::new(),
            shown: Shown {
                log: Some(place(log)),
                received: received.map(|(_, offset)| place(offset)),
                ..Shown::default()
            },
        }
    }

    #[test]
    fn a_spare_lacks_what_its_source_lacks_as_well() {
        let [a, b, c] = ["a", "b", "c"].map(|host| Address::new(host, 3306));
        let (master, hot) = (status(1_000, None), status(500, Some((&a, 900))));
        let lacked = |mine: &Status| lacks(mine, (&a, &master), Some((&b, &hot)));
        assert_eq!(lacked(&hot), Some(100));
        assert_eq!(lacked(&status(7, Some((&a, 400)))), Some(600), "fed by the master");
        assert_eq!(lacked(&status(7, Some((&b, 450)))), Some(150), "50 of the hot replica's log, and what that lacks");
        assert_eq!(lacked(&status(7, Some((&c, 450)))), None, "nobody knows that one's log");
        assert_eq!(lacks(&status(7, Some((&b, 450))), (&a, &master), None), None);
    }
}
