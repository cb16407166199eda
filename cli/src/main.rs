//! The program `understudy`.

use clap::Parser;
use cli::{Args, Exit};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::install_tls_provider();
    let args = Args::parse();
    cli::start_log(args.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&cli::Failure::of(&error)),
    };
    match runtime.block_on(cli::run(args)) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &cli::Failure) -> ExitCode {
    if !failure.sentence.is_empty() {
        eprintln!("understudy: {failure}");
    }
    failure.exit.into()
}
