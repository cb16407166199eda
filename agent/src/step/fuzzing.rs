//! What holds whatever others say to an agent: the fuzz target of its step.

use super::{Done, Event, Step, Written};
use election::{Address, Beat, Engine, Me, Memory, Millis, NodeId, Policy, Record, View};

/// No more rounds than this for one message: an agent that decides for ever would never sleep.
const ROUNDS: usize = 64;

/// Whatever peers, proxies and Consul say, in whatever order, the agent goes on deciding, comes to rest, and nothing it
/// decides breaks an invariant.
///
/// Each line is a message: `beat JSON`, `record JSON`, `engine JSON`, `witness EPOCH AGO_MS`, `wait MS`; any other line
/// is what a peer is made to say, and has to be refused as a beat.
///
/// # Panics
/// When that does not hold.
pub fn messages(data: &[u8]) {
    let mut now = Millis(1_000);
    let mut drawn = 0_u64;
    let random = move || {
        drawn += 1;
        format!("r{drawn}")
    };
    let mut step = Step::new(me(), Policy::default(), Memory::default(), now, random);
    step.handle(now, Event::Session(Some("s".to_owned())));
    let mut index = 0;
    for line in data.split(|byte| *byte == b'\n') {
        let (word, rest) = line.iter().position(|byte| *byte == b' ').map_or((line, line), |at| line.split_at(at));
        match word {
            b"beat" => beat(&mut step, now, rest),
            b"record" => {
                index += 1;
                let Ok(record) = serde_json::from_slice::<Record>(rest) else { continue };
                let view = View { seen: true, reachable: true, record: Some(record), index, ..View::default() };
                step.handle(now, Event::Watched(Box::new(view)));
            }
            b"engine" => {
                if let Ok(engine) = serde_json::from_slice::<Engine>(rest) {
                    step.handle(now, Event::Engine(engine));
                }
            }
            b"witness" => {
                let mut numbers = numbers(rest);
                let (epoch, ago_ms) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(u64::MAX));
                step.handle(now, Event::Witness { proxy: "p".to_owned(), epoch, ago_ms });
            }
            b"wait" => now = now.plus(numbers(rest).next().unwrap_or(1) % 100_000),
            _ => beat(&mut step, now, line),
        }
        settle(&mut step, now);
    }
}

fn beat(step: &mut Step, now: Millis, json: &[u8]) {
    if let Ok(beat) = serde_json::from_slice::<Beat>(json) {
        step.handle(now, Event::Beat(Box::new(beat)));
    }
}

/// Carries effects out as a world does in which nothing works.
fn settle(step: &mut Step, now: Millis) {
    for _ in 0..ROUNDS {
        let poll = step.poll(now, now.0);
        assert!(poll.revisit >= now || poll.effect.is_some(), "the past is no time to be polled at: {poll:?}");
        assert_eq!(step.take_violation(), None);
        let Some(effect) = poll.effect else { return };
        let done = match effect.what {
            super::What::Read => Done::Read(None),
            super::What::Remember(memory) => Done::Remembered(Ok(memory)),
            super::What::Submit(proposal) => Done::Submitted(proposal, Written::Refused),
            super::What::Answer { .. } => Done::Answered(Written::Refused),
            super::What::Engine(op) => Done::Engine(op, Err("no".to_owned()), step.engine().clone()),
        };
        step.done(now, done);
    }
    panic!("{ROUNDS} effects at one instant");
}

fn numbers(text: &[u8]) -> impl Iterator<Item = u64> {
    std::str::from_utf8(text).unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok())
}

fn me() -> Me {
    Me {
        id: NodeId::from("n1"),
        database: Address::new("10.0.0.1", 6379),
        zone: None,
        priority: 100,
        adopt: false,
        boot: "b1".to_owned(),
        group: "g".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/messages");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        assert_ne!(files.map(|file| super::messages(&std::fs::read(file).unwrap())).count(), 0);
    }
}
