//! The rules of ARCHITECTURE.md that a machine can check.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Packages in the order in which they may depend on each other.
const LAYERS: [&[&str]; 6] = [&["election"], &["config"], &["consul"], &["agent", "proxy"], &["cli"], &["tests"]];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The names under `[dependencies]` (what only tests need may point anywhere).
fn dependencies(package: &str) -> Vec<String> {
    let manifest = read(format!("{package}/Cargo.toml"));
    let section =
        manifest.split("\n[").find_map(|s| s.strip_prefix("dependencies]")).expect("a [dependencies] section");
    section
        .lines()
        .filter_map(|l| l.split(['.', ' ', '=']).next())
        .filter(|n| !n.is_empty())
        .map(str::to_owned)
        .collect()
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for package in LAYERS.concat() {
        sources(&root().join(package), &mut files);
    }
    assert!(files.len() > 50, "found only {} source files", files.len());
    files
}

#[test]
fn dependencies_run_one_way() {
    for (level, packages) in LAYERS.iter().enumerate() {
        for package in *packages {
            let allowed: Vec<&str> = LAYERS[..level].concat();
            for dependency in dependencies(package) {
                let ours = LAYERS.concat().contains(&dependency.as_str());
                assert!(!ours || allowed.contains(&dependency.as_str()), "{package} must not depend on {dependency}");
            }
        }
    }
}

#[test]
fn the_core_has_no_clock_no_io_and_no_randomness() {
    let allowed = ["serde", "thiserror"];
    for dependency in dependencies("election") {
        assert!(allowed.contains(&dependency.as_str()), "election must not depend on {dependency}");
    }
    let mut files = Vec::new();
    sources(&root().join("election/src"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for forbidden in ["std::time", "std::fs", "std::net", "std::thread", "std::env", "std::process", "SystemTime"] {
            assert!(!text.contains(forbidden), "{}: {forbidden}", file.display());
        }
    }
}

#[test]
fn consuls_key_names_stand_in_one_file() {
    for file in all_sources() {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        // Tests may look at Consul with their own eyes.
        if name == "consul/src/layout.rs" || name.starts_with("tests/") || name.contains("/tests/") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for key in ["}/record\"", "}/leader\"", "}/members/", "}/history/", "}/result/", "}/command\""] {
            assert!(!text.contains(key), "{name} spells the key {key} of Consul; consul/src/layout.rs does");
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for file in all_sources() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with a `//!` sentence", file.display());
    }
}
