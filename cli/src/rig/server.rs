//! The database servers that a rig can start groups of: where their programs are.

use super::error::RigError;
use super::files::program;
use config::Engine;
use std::fs;
use std::path::{Path, PathBuf};

/// Where Debian and its kin keep PostgreSQL's server programs, a folder a version.
const POSTGRES: &str = "/usr/lib/postgresql";

/// The server's program.
///
/// # Errors
/// When it is not on this machine; the text says how to get it.
pub fn find(engine: Engine) -> Result<PathBuf, RigError> {
    let how_mariadb = "install it with `apt-get install mariadb-server mariadb-backup` or your system's own way (any \
                       version from 10.6 on) and put it on PATH";
    let (found, name, how) = match engine {
        Engine::Redis => (
            program("redis-server"),
            "redis-server",
            "install it with `apt-get install redis-server` or your system's own way (any version from 6.2 on) and put \
             it on PATH",
        ),
        Engine::Postgres => (
            program("postgres").or_else(newest_postgres),
            "postgres",
            "install it with `apt-get install postgresql` or your system's own way (any version from 13 on) and put its \
             server's folder on PATH",
        ),
        // Copies are made by another package's program.
        Engine::Mariadb if program("mariadb-backup").is_none() => (None, "mariadb-backup", how_mariadb),
        Engine::Mariadb => (program("mariadbd"), "mariadbd", how_mariadb),
    };
    found.ok_or(RigError::Missing { program: name, how })
}

fn newest_postgres() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir(POSTGRES).ok()?.flatten().map(|entry| entry.path());
    let programs = versions.filter_map(|path| Some((version(&path)?, path.join("bin/postgres"))));
    programs.filter(|(_, path)| path.is_file()).max().map(|(_, path)| path)
}
