//! The scenarios of `tests/scenarios/`: stories of commands and what came of them, for every row of the design's table
//! of events and every hole that the core can show. `UPDATE_SCENARIOS=1` writes the answers anew.
//!
//! Each is also played cut: once for every action of an agent, which ends right after it. Whatever is left has to
//! recover once the faults are healed, or to say why it may not. And where a scenario says `closes BUG`, the same
//! commands with that bug planted have to be seen to break something.

use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use understudy_tests::sim::{Bug, perform};

/// One file, taken apart.
struct Scenario {
    path: PathBuf,
    bug: Option<Bug>,
    blocks: Vec<Block>,
}

/// Comments and commands as they stand there, the commands alone, and the answers.
#[derive(Default)]
struct Block {
    text: Vec<String>,
    commands: Vec<String>,
    golden: Vec<String>,
}

fn scenarios() -> Result<Vec<Scenario>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files: Vec<_> = std::fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
    let paths = files.iter().map(std::fs::DirEntry::path);
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect();
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Result<Scenario> {
    let text = std::fs::read_to_string(&path)?;
    let (mut blocks, mut bug, mut block, mut answers) = (Vec::new(), None, Block::default(), false);
    for line in text.lines() {
        match line {
            "----" => answers = true,
            "" if answers => {
                blocks.push(std::mem::take(&mut block));
                answers = false;
            }
            line if answers => block.golden.push(line.to_owned()),
            line => {
                block.text.push(line.to_owned());
                if let Some(name) = line.strip_prefix("closes ") {
                    let known = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
                    bug = Some(*known.with_context(|| format!("{}: no bug is called {name}", path.display()))?);
                } else if !line.is_empty() && !line.starts_with('#') {
                    block.commands.push(line.to_owned());
                }
            }
        }
    }
    if !block.text.is_empty() {
        blocks.push(block);
    }
    Ok(Scenario { path, bug, blocks })
}

impl Scenario {
    fn commands(&self) -> Vec<Vec<String>> {
        self.blocks.iter().map(|block| block.commands.clone()).collect()
    }

    fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The file as it should be.
    fn with(&self, answers: &[String]) -> String {
        let blocks = self.blocks.iter().zip(answers);
        let texts: Vec<String> = blocks.map(|(b, answer)| format!("{}\n----\n{answer}\n", b.text.join("\n"))).collect();
        texts.join("\n")
    }

    /// What is wrong with it, a text each.
    fn play(&self) -> Result<(), String> {
        let commands = self.commands();
        let played = perform(&commands, None, None)?;
        let wanted = self.with(&played.answers);
        if std::env::var_os("UPDATE_SCENARIOS").is_some() {
            std::fs::write(&self.path, wanted).map_err(|error| error.to_string())?;
        } else if wanted != std::fs::read_to_string(&self.path).map_err(|error| error.to_string())? {
            return Err(format!("it goes otherwise; with UPDATE_SCENARIOS=1 this is written:\n{wanted}"));
        }
        for cut in 1..=played.actions {
            perform(&commands, None, Some(cut)).map_err(|what| format!("cut after action {cut}: {what}"))?;
        }
        match self.bug.map(|bug| (bug, perform(&commands, Some(bug), None))) {
            Some((bug, Ok(_))) => Err(format!("with {bug:?} planted nothing is seen")),
            _ => Ok(()),
        }
    }
}

#[test]
fn every_story_goes_as_it_is_written_and_survives_every_cut() -> Result<()> {
    let (scenarios, next, wrong) = (scenarios()?, AtomicU64::new(0), Mutex::new(Vec::new()));
    assert!(scenarios.len() > 20, "only {} scenarios were found", scenarios.len());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(scenario) =
                    usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok().and_then(|at| scenarios.get(at))
                {
                    if let Err(what) = scenario.play() {
                        wrong
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(format!("{}: {what}", scenario.name()));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner()?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}
