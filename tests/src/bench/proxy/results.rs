//! From readings to medians, and from these to a line for programs and tables for people.

use super::super::numbers::median;
use super::load::Load;
use super::stage::{Front, Mode, Peer};
use config::Engine;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// What one front did in one case of one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) case: &'static str,
    pub(super) front: Front,
    pub(super) round: u32,
    pub(super) figures: Figures,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) load: Option<Load>,
    /// Of the proxy's process.
    pub(super) cpu_s_per_million: Option<f64>,
    /// The proxy's after the case; in the idle case for each connection.
    pub(super) rss_kib: Option<f64>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Load { rps, p50_ms, p99_ms }) = self.load {
            write!(f, "{rps:.0} requests/s, p50 {p50_ms:.3} ms, p99 {p99_ms:.3} ms, ")?;
        }
        if let Some(cpu) = self.cpu_s_per_million {
            write!(f, "{cpu:.2} CPU s per million, ")?;
        }
        match self.rss_kib {
            Some(rss) => write!(f, "{rss:.2} KiB"),
            None => write!(f, "no proxy"),
        }
    }
}

/// One line of JSON. What there is none of is null: a proxy's cost where there is no proxy, times where nothing is asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Line {
    bench: &'static str,
    engine: &'static str,
    system: &'static str,
    mode: &'static str,
    case: &'static str,
    rps: Option<f64>,
    ratio_to_direct: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    cpu_s_per_million: Option<f64>,
    rss_kib: Option<f64>,
}

/// All readings.
#[derive(Debug)]
pub(crate) struct Results {
    engine: Engine,
    readings: Vec<Reading>,
    cases: Vec<&'static str>,
    fronts: BTreeSet<Front>,
}

impl Results {
    pub(super) fn new(engine: Engine, readings: Vec<Reading>) -> Self {
        let mut cases = Vec::new();
        for reading in &readings {
            if !cases.contains(&reading.case) {
                cases.push(reading.case);
            }
        }
        let fronts = readings.iter().map(|reading| reading.front).collect();
        Self { engine, readings, cases, fronts }
    }

    /// The medians, by case and front.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let pairs = self.cases.iter().flat_map(|case| self.fronts.iter().map(move |front| (*case, *front)));
        pairs.filter(|(case, front)| self.of(case, *front).next().is_some()).map(|pair| self.line(pair)).collect()
    }

    fn line(&self, (case, front): (&'static str, Front)) -> Line {
        let load = |pick: fn(&Load) -> f64| self.median(case, front, move |figures| figures.load.as_ref().map(pick));
        Line {
            bench: "proxy",
            engine: self.engine.as_str(),
            system: front.system(),
            mode: front.mode(),
            case,
            rps: load(|load| load.rps).map(f64::round),
            ratio_to_direct: self.ratio(case, front, Front::Direct).map(|v| rounded(v, 3)),
            p50_ms: load(|load| load.p50_ms).map(|v| rounded(v, 3)),
            p99_ms: load(|load| load.p99_ms).map(|v| rounded(v, 3)),
            cpu_s_per_million: self.cpu(case, front).map(|v| rounded(v, 3)),
            rss_kib: self.rss(case, front).map(|v| rounded(v, 2)),
        }
    }

    /// The median, over the rounds, of one front's requests a second to another's.
    fn ratio(&self, case: &str, front: Front, to: Front) -> Option<f64> {
        let rps = |reading: &Reading| reading.figures.load.map(|load| load.rps);
        let pairs = self.of(case, front).filter_map(|reading| {
            let other = self.of(case, to).find(|other| other.round == reading.round)?;
            Some(rps(reading)? / rps(other)?)
        });
        median_of(pairs)
    }

    fn cpu(&self, case: &str, front: Front) -> Option<f64> {
        self.median(case, front, |figures| figures.cpu_s_per_million)
    }

    fn rss(&self, case: &str, front: Front) -> Option<f64> {
        self.median(case, front, |figures| figures.rss_kib)
    }

    fn median(&self, case: &str, front: Front, pick: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        median_of(self.of(case, front).filter_map(|reading| pick(&reading.figures)))
    }

    fn of(&self, case: &str, front: Front) -> impl Iterator<Item = &Reading> {
        self.readings.iter().filter(move |reading| reading.case == case && reading.front == front)
    }

    /// The medians for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(match self.engine {
            Engine::Redis => {
                "redis-benchmark, 100-byte values, through each proxy to one and the same master (append-only file on, one \
                 hot replica).\n"
            }
            Engine::Postgres => "pgbench -S, 100,000 rows, through each proxy to one and the same master.\n",
            Engine::Mariadb => {
                "sysbench oltp_point_select, 100,000 rows, through each proxy to one and the same master.\n"
            }
        });
        text.push_str(
            "Medians over the rounds; TO DIRECT is the median of the rounds' own ratios. CPU s/M: the proxy's processor \
             seconds for a\nmillion requests. RESIDENT: the proxy's KiB after the case; in the idle case for each \
             connection.\n",
        );
        if self.engine == Engine::Redis {
            text.push_str("Understudy's mode redis: the group's policy is `async` meanwhile, redis-durable: `sync`.\n");
        }
        text.push('\n');
        let _ = writeln!(
            text,
            "{:<13}{:<12}{:<14}{:>12}{:>11}{:>9}{:>9}{:>9}{:>12}",
            "CASE", "SYSTEM", "MODE", "REQUESTS/s", "TO DIRECT", "p50 ms", "p99 ms", "CPU s/M", "RESIDENT"
        );
        for line in self.lines() {
            let cell = |value: Option<f64>, places| value.map_or("-".to_owned(), |value| format!("{value:.places$}"));
            let _ = writeln!(
                text,
                "{:<13}{:<12}{:<14}{:>12}{:>11}{:>9}{:>9}{:>9}{:>12}",
                line.case,
                line.system,
                line.mode,
                cell(line.rps, 0),
                cell(line.ratio_to_direct, 2),
                cell(line.p50_ms, 3),
                cell(line.p99_ms, 3),
                cell(line.cpu_s_per_million, 2),
                cell(line.rss_kib, 2),
            );
        }
        text
    }

    /// What was to be reached, and what was; nothing for what was not measured.
    pub(crate) fn targets(&self) -> String {
        let mut targets = self.carrier_targets(TCP);
        targets.extend(self.carrier_targets(POSTGRES));
        targets.extend(self.redis_targets());
        targets.extend(self.memory_targets());
        let mut text = format!("{:<62}{:>10}{:>12}\n", "TARGET", "REACHED", "");
        for Target { what, value, bound } in &targets {
            let (sign, reach) = match bound {
                Bound::AtLeast(reach) => (">=", reach),
                Bound::AtMost(reach) => ("<=", reach),
            };
            let verdict = if bound.holds(*value) { "" } else { "MISSED" };
            let what = format!("{what} {sign} {reach:.2}");
            let _ = writeln!(text, "{what:<62}{value:>10.2}{verdict:>12}");
        }
        text
    }

    /// Of a mode that carries bytes: it is measured against HAProxy, which does nothing else.
    fn carrier_targets(&self, front: Front) -> Vec<Target> {
        let mode = front.mode();
        let mut targets = Vec::new();
        let mut ratios = Vec::new();
        for case in &self.cases {
            let Some(ratio) = self.ratio(case, front, HAPROXY) else { continue };
            ratios.push(ratio);
            if self.engine != Engine::Redis {
                continue; // Of the others the mean is asked for.
            }
            targets.push(Target::at_least(format!("{mode}, {case}: requests/s, HAProxy = 1"), Some(ratio), 0.95));
            targets.push(Target::at_most(
                format!("{mode}, {case}: CPU s/M, HAProxy's"),
                self.cpu(case, front),
                self.cpu(case, HAPROXY),
            ));
        }
        let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
        let mean = (!ratios.is_empty()).then_some(mean);
        targets.push(Target::at_least(format!("{mode}: requests/s, geometric mean, HAProxy = 1"), mean, 1.0));
        let large = self.ratio("get1m-c10", front, Front::Direct);
        targets.push(Target::at_least(format!("{mode}, get1m-c10: requests/s, direct = 1"), large, 0.8));
        targets.into_iter().flatten().collect()
    }

    fn redis_targets(&self) -> Vec<Target> {
        let reach = |case: &str| match case.split_once('-')?.1 {
            "c50-p1" => Some(0.9),
            "c50-p16" | "c50-p64" => Some(0.8),
            "c1-p1" => Some(0.6),
            _ => None,
        };
        let mut targets = Vec::new();
        for case in &self.cases {
            if let Some(reach) = reach(case) {
                let ratio = self.ratio(case, REDIS, Front::Direct);
                targets.push(Target::at_least(format!("redis, {case}: requests/s, direct = 1"), ratio, reach));
            }
            if case.ends_with("-c50-p1") {
                let (ours, theirs) = (self.cpu(case, REDIS), self.cpu(case, TWEMPROXY));
                targets.push(Target::at_most(format!("redis, {case}: CPU s/M, twemproxy's"), ours, theirs));
                let ratio = self.ratio(case, DURABLE, REDIS);
                targets.push(Target::at_least(format!("redis-durable, {case}: requests/s, redis = 1"), ratio, 0.7));
            }
        }
        targets.into_iter().flatten().collect()
    }

    fn memory_targets(&self) -> Vec<Target> {
        let idle = |front| self.rss("idle-5000", front);
        let mut targets = vec![
            Target::at_most("tcp, idle-5000: KiB a connection, HAProxy's".into(), idle(TCP), idle(HAPROXY)),
            Target::at_most("redis, idle-5000: KiB a connection".into(), idle(REDIS), Some(1.0)),
        ];
        for front in [TCP, REDIS, DURABLE] {
            for case in ["set-c50-p64", "get-c50-p64"] {
                let rss = self.rss(case, front).map(|kib| kib / 1_024.0);
                targets.push(Target::at_most(format!("{}, MiB after {case}", front.mode()), rss, Some(20.0)));
            }
        }
        targets.into_iter().flatten().collect()
    }
}

const HAPROXY: Front = Front::Peer(Peer::Haproxy);
const TWEMPROXY: Front = Front::Peer(Peer::Twemproxy);
const TCP: Front = Front::Understudy(Mode::Tcp);
const REDIS: Front = Front::Understudy(Mode::Redis);
const POSTGRES: Front = Front::Understudy(Mode::Postgres);
const DURABLE: Front = Front::Understudy(Mode::RedisDurable);

/// A figure to reach.
struct Target {
    what: String,
    value: f64,
    bound: Bound,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    /// None where one side of it was not measured.
    fn at_least(what: String, value: Option<f64>, reach: f64) -> Option<Self> {
        Some(Self { what, value: value?, bound: Bound::AtLeast(reach) })
    }

    fn at_most(what: String, value: Option<f64>, reach: Option<f64>) -> Option<Self> {
        Some(Self { what, value: value?, bound: Bound::AtMost(reach?) })
    }
}

impl Bound {
    fn holds(&self, value: f64) -> bool {
        match self {
            Bound::AtLeast(reach) => value >= *reach,
            Bound::AtMost(reach) => value <= *reach,
        }
    }
}

fn median_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| median(&values))
}

fn rounded(value: f64, places: i32) -> f64 {
    let unit = 10_f64.powi(places);
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(round: u32, front: Front, rps: f64) -> Reading {
        let load = Some(Load { rps, p50_ms: 0.1, p99_ms: 0.25 });
        let proxy = (front != Front::Direct).then_some(());
        let figures =
            Figures { load, cpu_s_per_million: proxy.map(|()| 6.0 + rps / 1e3), rss_kib: proxy.map(|()| 9_000.0) };
        Reading { case: "set-c50-p1", front, round, figures }
    }

    fn results() -> Results {
        // The machine is twice as fast in the second round.
        let rounds = [(1, 100.0, 50.0, 60.0), (2, 200.0, 120.0, 100.0), (3, 110.0, 66.0, 66.0)];
        Results::new(
            Engine::Redis,
            rounds
                .into_iter()
                .flat_map(|(round, direct, haproxy, ours)| {
                    [(Front::Direct, direct), (HAPROXY, haproxy), (TCP, ours)]
                        .map(|(front, rps)| reading(round, front, rps))
                })
                .collect(),
        )
    }

    #[test]
    fn the_lines_are_what_was_promised() {
        let lines: Vec<_> = results().lines().iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[0],
            "{\"bench\":\"proxy\",\"engine\":\"redis\",\"system\":\"direct\",\"mode\":\"tcp\",\"case\":\"set-c50-p1\",\"rps\":110.0,\
             \"ratio_to_direct\":1.0,\"p50_ms\":0.1,\"p99_ms\":0.25,\"cpu_s_per_million\":null,\"rss_kib\":null}"
        );
        assert_eq!(
            lines[2],
            "{\"bench\":\"proxy\",\"engine\":\"redis\",\"system\":\"understudy\",\"mode\":\"tcp\",\"case\":\"set-c50-p1\",\"rps\":66.0,\
             \"ratio_to_direct\":0.6,\"p50_ms\":0.1,\"p99_ms\":0.25,\"cpu_s_per_million\":6.066,\"rss_kib\":9000.0}"
        );
    }

    #[test]
    fn a_ratio_is_made_within_a_round() {
        let ratio = results().ratio("set-c50-p1", TCP, HAPROXY).unwrap();
        assert!((ratio - 1.0).abs() < 1e-9, "{ratio}: 1.2, 0.83 and 1.0");
    }

    #[test]
    fn of_an_engine_of_sql_the_mean_is_asked_for() {
        let mut results = results();
        results.engine = Engine::Postgres;
        results.readings.retain(|reading| reading.round != 1);
        let told = results.targets();
        assert!(told.contains("tcp: requests/s, geometric mean") && told.lines().count() == 2, "{told}");
        assert!(results.lines().iter().all(|line| line.engine == "postgres"));
    }

    #[test]
    fn a_target_that_is_missed_is_told() {
        let mut readings = results().readings;
        assert!(!results().targets().contains("MISSED"), "{}", results().targets());
        readings.retain(|reading| reading.round == 2);
        let told = Results::new(Engine::Redis, readings).targets();
        assert_eq!(told.matches("MISSED").count(), 2, "the case and the mean: {told}");
    }
}
