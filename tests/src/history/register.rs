//! Whether the requests on one key could have been done one after the other, each at some moment between its beginning
//! and its end: linearizability of a register, by the search of Wing, Gong and Lowe as `todc-utils` has it.

use super::{Action, Operation, Outcome};
use std::collections::BTreeMap;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action as Step, History as Steps};
use todc_utils::specifications::Specification;

/// A key that is not there at first.
struct Register;

impl Specification for Register {
    type State = Option<u64>;
    type Operation = Action;

    fn init() -> Self::State {
        None
    }

    fn apply(operation: &Action, state: &Self::State) -> (bool, Self::State) {
        match operation {
            Action::Write(value) => (true, Some(*value)),
            Action::Read(value) => (value == state, *state),
        }
    }
}

/// The operation that no order explains: with the ones before its end there is an order, with it there is none.
pub(super) fn first_unexplained(operations: &[&Operation]) -> Option<Operation> {
    let mut all = sound(operations);
    // A write stands before the read that shows it.
    all.sort_by_key(|operation| (operation.end, matches!(operation.action, Action::Read(_))));
    if is_linearizable(&all) {
        return None;
    }
    // What can be explained can be explained up to any moment: the shortest part that cannot is found by halving.
    let (mut good, mut bad) = (0, all.len());
    while bad - good > 1 {
        let middle = (good + bad) / 2;
        if is_linearizable(&all[..middle]) { good = middle } else { bad = middle }
    }
    all.get(bad - 1).cloned()
}

/// The operations that have to be explained, each with its latest moment.
///
/// A write that was read was done before that answer came; every value is written once, so there is no doubt which. One
/// of unknown outcome that nobody read may as well never have been done.
fn sound(operations: &[&Operation]) -> Vec<Operation> {
    let mut first_read = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.is_acknowledged()) {
        if let Action::Read(Some(value)) = operation.action {
            let end = first_read.entry(value).or_insert(operation.end);
            *end = operation.end.min(*end);
        }
    }
    let kept = operations.iter().filter_map(|operation| {
        let read = match operation.action {
            Action::Write(value) => first_read.get(&value).copied(),
            Action::Read(_) => None,
        };
        let end = match operation.outcome {
            Outcome::Acknowledged => read.map_or(operation.end, |read| read.min(operation.end)),
            Outcome::Unknown => read?,
            Outcome::Refused => return None,
        };
        // One that was read before it was sent stays impossible.
        Some(Operation { end: operation.begin.max(end), ..(*operation).clone() })
    });
    kept.collect()
}

fn is_linearizable(operations: &[Operation]) -> bool {
    if operations.is_empty() {
        return true;
    }
    // At one moment beginnings come first: what touches counts as overlapping.
    let mut steps: Vec<(u64, bool, usize)> = Vec::with_capacity(operations.len() * 2);
    for (index, operation) in operations.iter().enumerate() {
        steps.push((operation.begin, false, index));
        steps.push((operation.end, true, index));
    }
    steps.sort_unstable();
    let step = |(_, ends, index): (u64, bool, usize)| {
        let action = operations[index].action;
        (index, if ends { Step::Response(action) } else { Step::Call(action) })
    };
    WGLChecker::<Register>::is_linearizable(Steps::from_actions(steps.into_iter().map(step).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, begin: u64, end: u64, outcome: Outcome) -> Operation {
        Operation { client: 0, key: "k".to_owned(), action, begin, end, outcome, server: None }
    }

    fn done(action: Action, begin: u64, end: u64) -> Operation {
        operation(action, begin, end, Outcome::Acknowledged)
    }

    fn unexplained(operations: &[Operation]) -> Option<Operation> {
        first_unexplained(&operations.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_stale_read_is_found() {
        let stale = done(Action::Read(Some(1)), 5, 6);
        let story = [done(Action::Write(1), 0, 1), done(Action::Write(2), 2, 3), stale.clone()];
        assert_eq!(unexplained(&story), Some(stale));
    }

    #[test]
    fn a_value_that_came_and_went_is_found() {
        // A read showed the write, so it was done: a later read must not miss it.
        let missed = done(Action::Read(None), 6, 7);
        let story = [operation(Action::Write(1), 0, 9, Outcome::Unknown), done(Action::Read(Some(1)), 2, 3), missed];
        assert!(unexplained(&story).is_some());
    }

    #[test]
    fn an_unknown_write_may_appear_late_or_never() {
        let unknown = operation(Action::Write(2), 0, 1, Outcome::Unknown);
        let late = [unknown.clone(), done(Action::Read(None), 2, 3), done(Action::Read(Some(2)), 8, 9)];
        assert_eq!(unexplained(&late), None);
        assert_eq!(unexplained(&[unknown, done(Action::Read(None), 2, 9)]), None);
    }

    #[test]
    fn a_refused_write_must_never_be_read() {
        let refused = operation(Action::Write(1), 0, 1, Outcome::Refused);
        assert!(unexplained(&[refused, done(Action::Read(Some(1)), 2, 3)]).is_some());
    }

    #[test]
    fn concurrent_writes_may_be_seen_in_any_order_but_only_one() {
        let writes = [done(Action::Write(1), 0, 9), done(Action::Write(2), 0, 9)];
        let read = |value, at| done(Action::Read(Some(value)), at, at + 1);
        assert_eq!(unexplained(&[&writes[..], &[read(2, 1), read(1, 3)]].concat()), None);
        assert!(unexplained(&[&writes[..], &[read(2, 1), read(1, 3), read(2, 5)]].concat()).is_some());
    }

    /// All orders, tried one by one: slow and plainly right.
    fn by_trying(operations: &[Operation], state: Option<u64>) -> bool {
        let Some(deadline) = operations.iter().map(|o| o.end).min() else { return true };
        (0..operations.len()).filter(|i| operations[*i].begin <= deadline).any(|i| {
            let mut rest = operations.to_vec();
            let next = match rest.remove(i).action {
                Action::Write(value) => Some(value),
                Action::Read(value) if value == state => state,
                Action::Read(_) => return false,
            };
            by_trying(&rest, next)
        })
    }

    #[test]
    fn the_search_agrees_with_trying_all_orders() {
        let mut rng = crate::sim::rng::Rng::new(7);
        let (mut yes, mut no) = (0, 0);
        for _ in 0..3_000 {
            let operations: Vec<Operation> = (0..rng.range(0, 7))
                .map(|n| {
                    let begin = rng.range(0, 20);
                    let action = match rng.range(0, 2) {
                        0 => Action::Write(n),
                        _ => Action::Read(Some(rng.range(0, 7)).filter(|v| *v > 0)),
                    };
                    done(action, begin, begin + rng.range(0, 12))
                })
                .collect();
            let expected = by_trying(&operations, None);
            assert_eq!(is_linearizable(&operations), expected, "{operations:?}");
            if expected { yes += 1 } else { no += 1 }
        }
        assert!(yes > 500 && no > 500, "{yes} {no}");
    }
}
