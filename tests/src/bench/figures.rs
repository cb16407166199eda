//! Figures out of samples: a JSON line for programs, a table for people.

use super::numbers::Spread;
use super::{Fault, Sample, System};
use config::Engine;
use serde::Serialize;
use std::fmt::Write as _;

/// The figures of one system under one fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    bench: &'static str,
    system: &'static str,
    engine: &'static str,
    fault: &'static str,
    runs: usize,
    outage_ms: Spread,
    acked: usize,
    lost: usize,
}

impl Figures {
    /// Of at least one sample.
    pub(crate) fn of(system: System, engine: Engine, fault: Fault, samples: &[Sample]) -> Self {
        let outages = samples.iter().map(|sample| sample.outage.as_secs_f64() * 1_000.0);
        Self {
            bench: "failover",
            system: system.name(),
            engine: engine.as_str(),
            fault: fault.name(),
            runs: samples.len(),
            outage_ms: Spread::of(outages.collect()),
            acked: samples.iter().map(|sample| sample.acked).sum(),
            lost: samples.iter().map(|sample| sample.lost).sum(),
        }
    }
}

/// The table.
pub(crate) fn table(all: &[Figures]) -> String {
    let mut text = String::from(
        "Milliseconds from the fault to the first write that the new master acknowledged, at a client that writes every \
         5 ms\nand waits 1 s for an answer. All on this machine, in turn, each started anew and alone for every \
         run.\nUnderstudy: a `sync` group with its defaults, its pause after the first election waited for; one proxy in \
         tcp mode.\n",
    );
    let measured = |system: System| all.iter().any(|figures| figures.system == system.name());
    if measured(System::Sentinel) {
        text.push_str(
            "Sentinel: three of them at 500 ms, two replicas; the client asks them after every error, and only then.\n",
        );
    }
    if measured(System::Patroni) {
        text.push_str(
            "Patroni: three of them in synchronous mode at ttl 20, loop_wait 1, in one Consul; HAProxy asks them twice a \
             second.\n",
        );
    }
    text.push('\n');
    let _ = writeln!(
        text,
        "{:<12}{:<12}{:>5}{:>10}{:>10}{:>10}{:>9}{:>7}",
        "FAULT", "SYSTEM", "RUNS", "MIN", "MEDIAN", "MAX", "ACKED", "LOST"
    );
    for figures in all {
        let Figures { fault, system, runs, outage_ms, acked, lost, .. } = figures;
        let Spread { min, median, max } = outage_ms;
        let _ =
            writeln!(text, "{fault:<12}{system:<12}{runs:>5}{min:>10.1}{median:>10.1}{max:>10.1}{acked:>9}{lost:>7}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_line_is_what_was_promised() {
        let samples = [30, 10, 20, 41].map(|ms| Sample {
            outage: Duration::from_millis(ms),
            acked: 100,
            lost: usize::from(ms == 10),
        });
        let line = serde_json::to_string(&Figures::of(System::Sentinel, Engine::Redis, Fault::Node, &samples)).unwrap();
        assert_eq!(
            line,
            "{\"bench\":\"failover\",\"system\":\"sentinel\",\"engine\":\"redis\",\"fault\":\"node\",\"runs\":4,\
             \"outage_ms\":{\"min\":10.0,\"median\":25.0,\"max\":41.0},\"acked\":400,\"lost\":1}"
        );
    }
}
