//! redis-benchmark: how it is started, and what it says.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// Bytes of a value.
const VALUE_BYTES: &str = "100";

/// Keys that are used at random: enough that no two requests in flight meet, few enough for any machine's memory.
const KEYS: &str = "100000";

/// Far more than any case takes.
const LIMIT: Duration = Duration::from_secs(180);

/// What redis-benchmark measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Requests a second.
    pub(super) rps: f64,
    /// Milliseconds until an answer.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// Sends `count` requests to a port of this machine.
pub(super) async fn run(program: &Path, port: u16, count: u32, args: &[&str]) -> Result<Load> {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "--csv", "-d", VALUE_BYTES, "-r", KEYS]);
    command.args(["-n", &count.to_string()]).args(args);
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LIMIT, running).await.with_context(|| format!("redis-benchmark took over {LIMIT:?}"))??;
    let said = String::from_utf8_lossy(&output.stdout);
    match figures(&said) {
        Some(load) if output.status.success() => Ok(load),
        _ => bail!("redis-benchmark failed ({}): {said}{}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}

/// Of its last line: name, requests a second, then milliseconds: mean, least, p50, p95, p99, most.
fn figures(said: &str) -> Option<Load> {
    let line = said.lines().rev().find(|line| line.starts_with('"'))?;
    let values: Vec<f64> =
        line.rsplit("\",\"").map(|cell| cell.trim_matches('"').parse().ok()).map_while(|v| v).collect();
    match values[..] {
        [_, p99_ms, _, p50_ms, _, _, rps] => Some(Load { rps, p50_ms, p99_ms }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_read_whatever_the_command_is_called() {
        let head = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                    \"p99_latency_ms\",\"max_latency_ms\"\n";
        let line = "\"GET a,b\",\"6369.43\",\"0.110\",\"0.024\",\"0.103\",\"0.151\",\"0.303\",\"2.343\"\n";
        let load = figures(&format!("WARNING: no CONFIG\n{head}{line}"));
        assert_eq!(load, Some(Load { rps: 6_369.43, p50_ms: 0.103, p99_ms: 0.303 }));
        assert_eq!(figures(head), None);
        assert_eq!(figures(""), None);
    }
}
