//! What stands between a client and the master, and what it costs.
//!
//! Everything is measured against one and the same master, in turn: all of a round's readings of a case are taken one
//! after the other, and a ratio is made of two readings of one round, since a machine that others use is now faster
//! and now slower.

mod case;
mod idle;
mod load;
mod reads;
mod results;
mod stage;

pub(crate) use case::{Case, cases};
pub(crate) use stage::{Front, Mode, Peer};

use anyhow::{Context, Result, bail};
use case::Work;
use config::Engine;
use load::Load;
use reads::Reader;
use results::{Reading, Results};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stage::{Server, Stage, need};
use std::path::PathBuf;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) engine: Engine,
    pub(crate) rounds: u32,
    pub(crate) cases: Vec<&'static Case>,
    /// Beside the direct way, which is always measured.
    pub(crate) fronts: Vec<Front>,
    /// Of the requests of a full run.
    pub(crate) percent: u32,
}

/// Measures all of it.
pub(crate) async fn measure(plan: &Plan) -> Result<Results> {
    let client = Client::find(plan.engine)?;
    raise_open_files();
    let mut stage = Stage::start(plan.engine).await?;
    if let Client::Sql(reader) = &client {
        reader.fill(stage.master()).await?;
    }
    let mut servers = vec![(Front::Direct, stage.put_up(Front::Direct).await?)];
    for front in &plan.fronts {
        servers.push((*front, stage.put_up(*front).await?));
    }
    let mut readings = Vec::new();
    for round in 1..=plan.rounds {
        for case in &plan.cases {
            // Nobody always has the quiet, or the noisy, end of a round.
            servers.rotate_left(1);
            for (front, server) in &servers {
                stage.prepare(*front).await?;
                let figures = match case.work {
                    Work::Idle(_) if *front == Front::Direct => continue,
                    Work::Idle(count) => idle(&mut stage, *front, count).await,
                    work => {
                        stage.tidy_up().await?;
                        load(&client, server, work, plan.percent).await
                    }
                };
                let figures = figures.with_context(|| format!("{} through {front}", case.name))?;
                eprintln!("{round}/{} {:<12} {front}: {figures}", plan.rounds, case.name);
                readings.push(Reading { case: case.name, front: *front, round, figures });
            }
        }
    }
    Ok(Results::new(plan.engine, readings))
}

/// Who asks.
enum Client {
    /// redis-benchmark.
    Redis(PathBuf),
    Sql(Reader),
}

impl Client {
    fn find(engine: Engine) -> Result<Self> {
        match engine {
            Engine::Redis => need("redis-benchmark").map(Self::Redis),
            engine => Reader::find(engine).map(Self::Sql),
        }
    }

    /// Does `percent` hundredths of the work; says how many requests these were.
    async fn run(&self, port: u16, work: Work, percent: u32) -> Result<(u32, Load)> {
        let share = |count: u32| (count * percent / 100).max(1);
        match (self, work) {
            (Self::Redis(program), Work::Requests(count, args)) => {
                Ok((share(count), load::run(program, port, share(count), args).await?))
            }
            (Self::Sql(reader), Work::Reads(reads)) => {
                let reads = reads.times(share(reads.count));
                Ok((reads.count, reader.run(port, reads).await?))
            }
            _ => bail!("the case is another engine's"),
        }
    }
}

async fn load(client: &Client, server: &Server, work: Work, percent: u32) -> Result<results::Figures> {
    let before = server.usage().ok();
    let (count, load) = client.run(server.port(), work, percent).await?;
    let after = server.usage().ok();
    let used = before.zip(after).map(|(before, after)| after.cpu.saturating_sub(before.cpu));
    Ok(results::Figures {
        load: Some(load),
        cpu_s_per_million: used.map(|cpu| cpu.as_secs_f64() * 1e6 / f64::from(count)),
        rss_kib: after.map(|after| after.resident_kib as f64),
    })
}

/// By a process that has served nobody: what an earlier case has left in it would hide what connections cost.
async fn idle(stage: &mut Stage, front: Front, count: u32) -> Result<results::Figures> {
    let server = stage.put_up(front).await?;
    let each = idle::resident_kib_each(&server, count).await?;
    Ok(results::Figures { load: None, cpu_s_per_million: None, rss_kib: Some(each) })
}

/// The idle connections are ours, too. Where the system does not allow it they fail, and say so.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
