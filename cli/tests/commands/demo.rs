//! The demo: its last line, and that it leaves nothing behind however it ends.

use crate::common::{LIMIT, command, end};
use cli::rig::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Often enough that the demo is still at it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Everything the demo starts works in a folder below `TMPDIR`, which is drawn for the test.
fn left_in(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let working = processes.filter(|path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder)));
    working.map(|path| fs::read_to_string(path.join("comm")).unwrap_or_default()).collect()
}

fn loses_nothing(engine: &str, args: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    // As the system's own is: servers that do not run as root use it too.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let said = end(command(&[&["demo"], args].concat()).env("TMPDIR", folder.path()));
    let figures: Value = serde_json::from_str(said.done().lines().last().unwrap()).unwrap();
    assert_eq!(figures["engine"], engine);
    let acts = figures["demo"].as_array().unwrap();
    let faults: Vec<&Value> = acts.iter().map(|act| &act["fault"]).collect();
    assert_eq!(faults, ["kill", "node", "switchover"]);
    for act in acts {
        assert_eq!(act["lost"], 0, "{act}");
        assert!(act["acked"].as_u64().unwrap() >= 400 && act["outage_ms"].as_f64().unwrap() > 0.0, "{act}");
    }
    assert!(!said.out.contains('\x1b'), "colours without a terminal");
    assert_eq!(left_in(folder.path()), Vec::<String>::new());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_loses_nothing_and_its_last_line_is_json() {
    loses_nothing("redis", &[]);
}

#[test]
fn the_demo_of_postgres_loses_nothing() {
    loses_nothing("postgres", &["--engine", "postgres"]);
}

#[test]
fn the_demo_of_mariadb_loses_nothing() {
    loses_nothing("mariadb", &["--engine", "mariadb"]);
}

#[test]
fn ctrl_c_ends_everything_that_was_started() {
    let folder = tempfile::tempdir().unwrap();
    let mut out = tempfile::NamedTempFile::new().unwrap();
    let stdout = out.reopen().unwrap();
    let mut demo = command(&["demo"]).env("TMPDIR", folder.path()).stdout(stdout).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    let mut told = String::new();
    while !told.contains("Act 1") {
        assert!(Instant::now() < deadline && demo.try_wait().unwrap().is_none(), "no first act: {told}");
        out.read_to_string(&mut told).unwrap();
        std::thread::sleep(LOOK_AGAIN);
    }
    assert!(!left_in(folder.path()).is_empty());
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    assert_eq!(wait(&mut demo, LIMIT).unwrap().expect("it goes on").code(), Some(1));
    assert_eq!(left_in(folder.path()), Vec::<String>::new());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
