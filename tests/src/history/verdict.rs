//! What a history proves wrong.

use super::{Account, Action, History, Operation, Outcome, Server, Sum, register};
use std::collections::BTreeMap;
use std::fmt;

/// Of many alike so many are told.
const TOLD: usize = 5;

/// What is asked for beyond that no acknowledged write is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promises {
    /// Reads are linearizable with the writes (`reads = "durable"`).
    pub reads: bool,
    /// No acknowledgement comes from an epoch that was over before the request began.
    pub order: bool,
}

/// What is wrong, each with the operations that show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Writes whose outcome was never told.
    pub unknown: usize,
    /// Writes that were refused.
    pub refused: usize,
    /// Reads that were answered.
    pub reads: usize,
    /// Acknowledged writes that are not there.
    pub lost: Vec<Operation>,
    /// Writes that are there more than once.
    pub doubled: Vec<Operation>,
    /// Refused writes that are there.
    pub undead: Vec<Operation>,
    /// Of a register, the first answer that no order of its operations explains.
    pub unexplained: Vec<Operation>,
    /// Epochs in which more than one process acknowledged.
    pub split: Vec<(Server, Server)>,
    /// Acknowledgements of an epoch after one of a later epoch.
    pub stale: Vec<(Operation, Operation)>,
    /// Sums of all accounts that were answered.
    pub sums: usize,
    /// Sums in which money had come into being or gone.
    pub wrong_sums: Vec<Sum>,
    /// Accounts that do not hold, at the end, what the transfers say.
    pub wrong_accounts: Vec<Account>,
}

impl Verdict {
    /// Judges a history. A key that one write only was ever sent to is looked up at the end; the others are registers.
    pub fn of(history: &History, promises: Promises) -> Self {
        let mut verdict = Self::default();
        let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for operation in &history.operations {
            verdict.count(operation);
            keys.entry(&operation.key).or_default().push(operation);
        }
        let over = history.operations.iter().map(|operation| operation.end).max().unwrap_or(0) + 1;
        for (key, operations) in keys {
            let last = history.last.get(key).map_or(&[][..], Vec::as_slice);
            match operations[..] {
                [only] if matches!(only.action, Action::Write(_)) => verdict.look_up(only, last),
                _ => verdict.order(&operations, last.first().copied(), over, promises.reads),
            }
        }
        verdict.masters(history, promises.order);
        if let Some(bank) = &history.bank {
            verdict.sums = bank.sums.len();
            verdict.wrong_sums = bank.wrong_sums();
            verdict.wrong_accounts = bank.wrong_accounts();
        }
        verdict
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        let operations = [&self.lost, &self.doubled, &self.undead, &self.unexplained];
        let masters = self.split.is_empty() && self.stale.is_empty();
        masters
            && operations.iter().all(|wrong| wrong.is_empty())
            && self.wrong_sums.is_empty()
            && self.wrong_accounts.is_empty()
    }

    fn count(&mut self, operation: &Operation) {
        match (operation.action, operation.outcome) {
            (Action::Write(_), Outcome::Acknowledged) => self.acknowledged += 1,
            (Action::Write(_), Outcome::Unknown) => self.unknown += 1,
            (Action::Write(_), Outcome::Refused) => self.refused += 1,
            (Action::Read(_), Outcome::Acknowledged) => self.reads += 1,
            (Action::Read(_), _) => {}
        }
    }

    fn look_up(&mut self, write: &Operation, last: &[u64]) {
        let Action::Write(value) = write.action else { return };
        let times = last.iter().filter(|found| **found == value).count();
        match write.outcome {
            Outcome::Acknowledged if times == 0 => self.lost.push(write.clone()),
            Outcome::Refused if times > 0 => self.undead.push(write.clone()),
            // One whose outcome was never told may be there or not; twice it may not.
            _ if times > 1 => self.doubled.push(write.clone()),
            _ => {}
        }
    }

    fn order(&mut self, operations: &[&Operation], last: Option<u64>, over: u64, reads: bool) {
        let end = Operation {
            client: usize::MAX,
            key: operations[0].key.clone(),
            action: Action::Read(last),
            begin: over,
            end: over,
            outcome: Outcome::Acknowledged,
            server: None,
        };
        let wanted = operations.iter().copied().filter(|o| reads || matches!(o.action, Action::Write(_)));
        let all: Vec<&Operation> = wanted.chain([&end]).collect();
        let Some(unexplained) = register::first_unexplained(&all) else { return };
        if unexplained == end {
            // Every answer makes sense but for what is there at the end: the newest acknowledged write is gone.
            let writes = operations.iter().filter(|o| o.is_acknowledged() && matches!(o.action, Action::Write(_)));
            self.lost.extend(writes.max_by_key(|o| o.end).map(|o| (*o).clone()));
        }
        self.unexplained.push(unexplained);
    }

    fn masters(&mut self, history: &History, order: bool) {
        let mut told: Vec<(&Operation, &Server)> = history
            .operations
            .iter()
            .filter(|operation| operation.is_acknowledged())
            .filter_map(|operation| Some((operation, operation.server.as_ref()?)))
            .collect();
        let mut by_epoch: BTreeMap<u64, &Server> = BTreeMap::new();
        for (_, server) in &told {
            let first = by_epoch.entry(server.epoch).or_insert(server);
            if first.run_id != server.run_id && !self.split.iter().any(|(_, other)| other == *server) {
                self.split.push(((*first).clone(), (*server).clone()));
            }
        }
        if !order {
            return;
        }
        told.sort_by_key(|(operation, _)| operation.end);
        let mut begun = told.clone();
        begun.sort_by_key(|(operation, _)| operation.begin);
        let mut ended = told.iter().peekable();
        let mut newest: Option<(&Operation, &Server)> = None;
        for (operation, server) in begun {
            while let Some(before) = ended.next_if(|(before, _)| before.end < operation.begin) {
                newest = newest.filter(|(_, known)| known.epoch >= before.1.epoch).or(Some(*before));
            }
            if let Some((later, _)) = newest.filter(|(_, known)| known.epoch > server.epoch) {
                self.stale.push((later.clone(), operation.clone()));
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, unknown, refused, reads, .. } = self;
        write!(f, "{acknowledged} writes acknowledged, {unknown} unknown, {refused} refused, {reads} reads; ")?;
        if self.sums > 0 {
            write!(f, "{} sums of all accounts; ", self.sums)?;
        }
        write!(f, "{} lost", self.lost.len())?;
        many(f, "acknowledged and not there", &self.lost)?;
        many(f, "there more than once", &self.doubled)?;
        many(f, "refused and there", &self.undead)?;
        many(f, "explained by no order", &self.unexplained)?;
        let pairs = self.split.iter().map(|(one, other)| format!("{} and {}", one.run_id, other.run_id));
        many(f, "acknowledged in one epoch by two", &pairs.collect::<Vec<_>>())?;
        let stale = self.stale.iter().map(|(later, stale)| format!("{stale}, after {later}"));
        many(f, "acknowledged in an epoch that was over", &stale.collect::<Vec<_>>())?;
        many(f, "sums that are wrong", &self.wrong_sums)?;
        many(f, "accounts that their transfers do not explain", &self.wrong_accounts)
    }
}

fn many(f: &mut fmt::Formatter<'_>, what: &str, all: &[impl fmt::Display]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    write!(f, "\n  {} {what}:", all.len())?;
    all.iter().take(TOLD).try_for_each(|one| write!(f, "\n    {one}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Bank;

    fn write(key: &str, value: u64, begin: u64, outcome: Outcome) -> Operation {
        let action = Action::Write(value);
        Operation { client: 1, key: key.to_owned(), action, begin, end: begin + 5, outcome, server: None }
    }

    fn by(epoch: u64, run_id: &str, begin: u64) -> Operation {
        let server = Some(Server { epoch, run_id: run_id.to_owned() });
        Operation { server, ..write(&format!("tag:{begin}"), begin, begin, Outcome::Acknowledged) }
    }

    fn judge(operations: Vec<Operation>, last: &[(&str, u64)]) -> Verdict {
        let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        last.iter().for_each(|(key, value)| found.entry((*key).to_owned()).or_default().push(*value));
        Verdict::of(&History { operations, last: found, bank: None }, Promises { reads: true, order: true })
    }

    #[test]
    fn a_lost_write_is_told_and_an_unknown_one_is_not() {
        let lost = write("a", 1, 0, Outcome::Acknowledged);
        let others = [write("b", 2, 0, Outcome::Acknowledged), write("c", 3, 0, Outcome::Unknown)];
        let verdict = judge([vec![lost.clone()], others.to_vec()].concat(), &[("b", 2)]);
        assert_eq!((verdict.acknowledged, verdict.unknown), (2, 1));
        assert_eq!(verdict.lost, [lost]);
        assert!(!verdict.is_clean() && verdict.to_string().contains("1 acknowledged and not there"), "{verdict}");
    }

    #[test]
    fn a_write_that_came_back_with_another_value_is_lost() {
        assert_eq!(judge(vec![write("a", 1, 0, Outcome::Acknowledged)], &[("a", 9)]).lost.len(), 1);
    }

    #[test]
    fn a_write_that_is_there_twice_is_told() {
        for outcome in [Outcome::Acknowledged, Outcome::Unknown] {
            let twice = write("a", 1, 0, outcome);
            let verdict = judge(vec![twice.clone()], &[("a", 1), ("a", 1)]);
            assert_eq!((verdict.doubled, verdict.lost.len()), (vec![twice], 0));
        }
    }

    #[test]
    fn money_that_came_or_went_is_told() {
        let sums = vec![Sum { client: 1, begin: 0, end: 5, total: 199 }];
        let bank = Bank { opening: 100, accounts: vec![100, 90], transfers: Vec::new(), sums };
        let verdict = Verdict::of(&History { bank: Some(bank), ..History::default() }, Promises::default());
        assert_eq!((verdict.sums, verdict.wrong_sums.len(), verdict.wrong_accounts.len()), (1, 1, 1));
        let told = verdict.to_string();
        assert!(!verdict.is_clean() && told.contains("199") && told.contains("account 1 holds 90, not 100"), "{told}");
    }

    #[test]
    fn a_refused_write_that_is_there_is_told() {
        let verdict = judge(vec![write("a", 1, 0, Outcome::Refused)], &[("a", 1)]);
        assert_eq!((verdict.undead.len(), verdict.is_clean()), (1, false));
        assert!(judge(vec![write("a", 1, 0, Outcome::Refused)], &[]).is_clean());
    }

    #[test]
    fn a_register_whose_newest_write_is_gone_has_lost_it() {
        let newest = write("r", 2, 10, Outcome::Acknowledged);
        let verdict = judge(vec![write("r", 1, 0, Outcome::Acknowledged), newest.clone()], &[("r", 1)]);
        assert_eq!(verdict.lost, [newest]);
    }

    #[test]
    fn reads_count_only_where_they_are_promised() {
        let stale = Operation { action: Action::Read(None), ..write("r", 0, 20, Outcome::Acknowledged) };
        let operations = vec![write("r", 1, 0, Outcome::Acknowledged), stale];
        let history = History { operations, last: BTreeMap::from([("r".to_owned(), vec![1])]), bank: None };
        assert!(Verdict::of(&history, Promises::default()).is_clean());
        assert_eq!(Verdict::of(&history, Promises { reads: true, order: false }).unexplained.len(), 1);
    }

    fn masters(operations: Vec<Operation>) -> Verdict {
        let last = operations.iter().map(|o| (o.key.clone(), vec![o.begin])).collect();
        Verdict::of(&History { operations, last, bank: None }, Promises { reads: true, order: true })
    }

    #[test]
    fn two_masters_of_one_epoch_are_told_once() {
        let verdict = masters(vec![by(3, "one", 0), by(3, "two", 10), by(3, "two", 20), by(4, "two", 30)]);
        assert_eq!(verdict.split.len(), 1);
        assert!(masters(vec![by(3, "one", 0), by(4, "two", 10)]).is_clean());
    }

    #[test]
    fn an_acknowledgement_of_an_epoch_that_was_over_is_told() {
        assert_eq!(masters(vec![by(4, "new", 0), by(3, "old", 10)]).stale.len(), 1);
        // It was under way when the epoch changed.
        assert!(masters(vec![by(4, "new", 4), by(3, "old", 0)]).is_clean());
    }
}
