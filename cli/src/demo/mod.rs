//! `understudy demo`: a whole group on this machine, three faults under load, and what a client noticed of them.

mod acts;
mod story;

use crate::exit::Failure;
use crate::rig::{Rig, RigError};
use acts::{Act, kill, node, switchover};
use config::Engine;
use std::env;
use std::time::Duration;
use story::Story;
use tokio::signal::unix::{SignalKind, signal};

/// What is promised. The story takes about a minute; a very slow machine, longer.
const LIMIT: Duration = Duration::from_secs(118);

/// Plays it. Whatever ends it, also ctrl-c, ends everything that it started.
pub(crate) async fn run(engine: Engine, keep: bool) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::of(&error))?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(|error| Failure::of(&error))?;
    let ended = |by: &str| Err(Failure::new(format!("the demo was ended by {by}; everything it started is ended too")));
    tokio::select! {
        played = tokio::time::timeout(LIMIT, play(engine, keep)) => match played {
            Ok(result) => result,
            Err(_) => Err(Failure::new(format!("the demo did not end within {} s", LIMIT.as_secs()))),
        },
        _ = tokio::signal::ctrl_c() => ended("ctrl-c"),
        _ = terminate.recv() => ended("SIGTERM"),
        _ = hang_up.recv() => ended("SIGHUP"),
    }
}

async fn play(engine: Engine, keep: bool) -> Result<(), Failure> {
    let story = Story::new(engine);
    let binary = env::current_exe().map_err(|error| Failure::new(format!("cannot find my own program: {error}")))?;
    story.prologue()?;
    let rig = Rig::builder(binary).engine(engine).listener(listener(engine)).keep(keep);
    let mut rig = rig.start().await.map_err(|error| failed(&error))?;
    let acts = perform(&mut rig, &story).await?;
    if keep {
        story.say(&format!("Configuration, data and logs are left in {}", rig.folder().display()))?;
    }
    drop(rig);
    story.epilogue(&acts)
}

/// The listener that promises most.
fn listener(engine: Engine) -> &'static str {
    match engine {
        Engine::Redis => "protocol = \"redis\"",
        Engine::Postgres => "protocol = \"postgres\"",
        Engine::Mariadb => "protocol = \"tcp\"",
    }
}

async fn perform(rig: &mut Rig, story: &Story) -> Result<Vec<Act>, Failure> {
    story.stage(rig, &rig.status().await?)?;
    let mut acts = Vec::new();
    for (number, fault) in ["kill", "node", "switchover"].into_iter().enumerate() {
        let result = match fault {
            "kill" => kill(rig, story, number + 1).await,
            "node" => node(rig, story, number + 1).await,
            _ => switchover(rig, story, number + 1).await,
        };
        acts.push(result.map_err(|stop| stop.failure())?);
    }
    Ok(acts)
}

fn failed(error: &RigError) -> Failure {
    match error {
        RigError::Missing { .. } => Failure::new(format!("the demo cannot begin: {error}")),
        _ => Failure::of(error),
    }
}

/// Why an act was broken off.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Rig(#[from] RigError),
    #[error(transparent)]
    Told(#[from] Failure),
}

impl Stop {
    fn failure(self) -> Failure {
        match self {
            Stop::Rig(error) => failed(&error),
            Stop::Told(failure) => failure,
        }
    }
}
