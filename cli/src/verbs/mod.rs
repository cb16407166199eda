//! The verbs, a module each.

mod config;
mod daemons;
mod drain;
mod explain;
mod failover;
mod history;
mod pause;
mod reinit;
mod request;
mod restore;
mod resume;
pub(crate) mod status;
pub(crate) mod switchover;

use crate::args::{Args, Verb};
use crate::demo;
use crate::exit::Failure;
use crate::store::Store;

/// Does what the command line asks for.
pub async fn run(args: Args) -> Result<(), Failure> {
    let store = || Store::connect(&args.consul);
    match args.verb {
        Verb::Agent(file) => daemons::agent(&file.config).await,
        Verb::Proxy(file) => daemons::proxy(&file.config).await,
        Verb::Check { file } => daemons::check(&file),
        Verb::Status(options) => status::run(&store()?, &options).await,
        Verb::Switchover(options) => switchover::run(&store()?, &options).await,
        Verb::Failover(options) => failover::run(&store()?, &options).await,
        Verb::Pause { group } => pause::run(&store()?, &group).await,
        Verb::Resume(options) => resume::run(&store()?, &options).await,
        Verb::Config(options) => config::run(&store()?, &options).await,
        Verb::Drain(options) => drain::run(&store()?, &options).await,
        Verb::Reinit(options) => reinit::run(&store()?, &options).await,
        Verb::Explain(options) => explain::run(&store()?, &options).await,
        Verb::History(options) => history::run(&store()?, &options).await,
        Verb::Demo(options) => demo::run(options.engine, options.keep).await,
    }
}
