//! The manual says what the program does: `docs/operations.md` against the code.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test")]

use clap::CommandFactory;
use cli::{Args, Exit};
use election::{Evidence, Reason};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// One row of a table of reasons.
struct Row {
    code: String,
    sentence: String,
    meaning: String,
    remedy: String,
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn manual() -> String {
    read("docs/operations.md")
}

/// The rows between `<!-- reasons -->` and `<!-- end -->`, without heads.
fn rows(manual: &str) -> Vec<Row> {
    let tables = manual.split("<!-- reasons -->").skip(1).map(|rest| rest.split("<!-- end -->").next().unwrap());
    let lines = tables.flat_map(str::lines).filter(|line| line.starts_with("| `"));
    lines.map(row).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
    let [code, sentence, meaning, remedy] = cells[..] else { panic!("not four cells: {line}") };
    let code = code.trim_matches('`').to_owned();
    Row { code, sentence: sentence.to_owned(), meaning: meaning.to_owned(), remedy: remedy.to_owned() }
}

/// The names of an enum's variants, from the type itself: whoever deserialises it lists them when it meets another.
/// A list written here by hand, or one read out of the source, could miss one.
fn variants<T: DeserializeOwned + std::fmt::Debug>(unknown: &str) -> BTreeSet<String> {
    let error = serde_json::from_str::<T>(unknown).unwrap_err().to_string();
    let (_, listed) = error.split_once("expected one of ").unwrap_or_else(|| panic!("no list of variants: {error}"));
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn reasons() -> BTreeSet<String> {
    variants::<Reason>("{\"code\":\"no such code\"}")
}

/// Every sentence with its variant, as they stand in the source: nothing at run time knows a sentence whose figures
/// are not filled in. That none is missed is checked against [`variants`].
fn sentences(source: &str, name: &str) -> BTreeMap<String, String> {
    let (_, rest) = source.split_once(&format!("pub enum {name} {{")).expect("the enum");
    let (body, _) = rest.split_once("\n}\n").expect("its end");
    let parts = body.split("#[error(").skip(1).map(|part| {
        let (quoted, after) = literal(part);
        let names = |line: &&str| line.starts_with(|c: char| c.is_ascii_uppercase());
        let variant = after.lines().skip(1).map(str::trim).find(names).expect("a variant");
        (snake(variant.split([' ', ',', '{']).next().unwrap()), quoted)
    });
    parts.collect()
}

/// The string literal that the text begins with, and what comes after it.
fn literal(text: &str) -> (String, &str) {
    let begin = text.find('"').expect("a literal") + 1;
    let end = begin + text[begin..].match_indices('"').find(|(at, _)| !text[..begin + at].ends_with('\\')).unwrap().0;
    (text[begin..end].replace("\\\"", "\""), &text[end..])
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[test]
fn every_reason_has_one_row_and_every_row_is_a_reason() {
    let manual = manual();
    let codes: Vec<String> = rows(&manual).into_iter().map(|row| row.code).collect();
    let listed: BTreeSet<String> = codes.iter().cloned().collect();
    let known = reasons();
    assert!(known.len() > 70, "{known:?}");
    let missing: Vec<_> = known.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/operations.md has no row for {missing:?}");
    let made_up: Vec<_> = listed.difference(&known).collect();
    assert!(made_up.is_empty(), "docs/operations.md lists what is no reason: {made_up:?}");
    assert_eq!(codes.len(), listed.len(), "a code has two rows in docs/operations.md");
}

#[test]
fn the_code_of_a_reason_is_its_name_in_json() {
    for reason in [
        Reason::ConsulUnseen,
        Reason::ServingReplicaAgentSilent { replica: "db2".into() },
        Reason::TakingOver { evidence: Evidence::NodeGone },
    ] {
        assert_eq!(serde_json::to_value(&reason).unwrap()["code"], reason.code());
        assert!(reasons().contains(&reason.code()));
    }
}

#[test]
fn the_sentences_are_those_of_the_code() {
    let sentences = sentences(&read("election/src/decision.rs"), "Reason");
    assert_eq!(sentences.keys().cloned().collect::<BTreeSet<_>>(), reasons());
    for row in rows(&manual()) {
        assert_eq!(Some(&row.sentence), sentences.get(&row.code), "docs/operations.md, `{}`", row.code);
        assert!(!row.meaning.is_empty() && !row.remedy.is_empty(), "docs/operations.md, `{}`", row.code);
    }
}

#[test]
fn every_evidence_is_explained_as_history_shows_it() {
    let manual = manual();
    let sentences = sentences(&read("election/src/decision.rs"), "Evidence");
    assert_eq!(sentences.keys().cloned().collect::<BTreeSet<_>>(), variants::<Evidence>("\"no such evidence\""));
    for sentence in sentences.values() {
        assert!(manual.contains(&format!("\n| `{sentence}` | ")), "docs/operations.md does not explain `{sentence}`");
    }
}

#[test]
fn every_command_is_there() {
    let manual = manual();
    let tree = Args::command();
    for verb in tree.get_subcommands().map(clap::Command::get_name) {
        assert!(manual.contains(&format!("`understudy {verb}")), "docs/operations.md does not mention {verb}");
    }
}

#[test]
fn every_exit_code_is_there_with_its_meaning() {
    let manual = manual();
    let codes: Vec<(&str, &str)> = Exit::HELP.lines().filter_map(|line| line.trim().split_once("  ")).collect();
    assert!(codes.len() >= 5, "{codes:?}");
    for (code, meaning) in codes {
        let row = format!("\n| {code} | {} |", meaning.trim());
        assert!(manual.contains(&row), "docs/operations.md has no row {row}");
    }
}

#[test]
fn links_within_the_page_lead_somewhere() {
    let manual = manual();
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase().replace(|c: char| !(c.is_alphanumeric() || " -_".contains(c)), "");
        kept.replace(' ', "-")
    };
    let heading = |line: &str| line.starts_with('#').then(|| anchor(line.trim_start_matches('#').trim()));
    let headings: BTreeSet<String> = manual.lines().filter_map(heading).collect();
    let links = manual.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap());
    for link in links {
        assert!(headings.contains(link), "docs/operations.md links to #{link}");
    }
}
