//! The command line: every verb and option, with its help.

use crate::exit::Exit;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use config::Engine;
use std::path::PathBuf;
use std::time::Duration;

/// Keeps Redis and SQL databases highly available with Consul.
#[derive(Debug, Parser)]
#[command(name = "understudy", version, about, after_help = Exit::HELP, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Where Consul is, for the commands without a file.
    #[command(flatten)]
    pub consul: ConsulArgs,
    /// How the log on standard error is written. RUST_LOG says how much, `info` when unset
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// Where Consul is.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct ConsulArgs {
    /// Consul's address, `host:port` or with `https://`; else CONSUL_HTTP_ADDR and its companions, as for `consul`
    #[arg(long = "consul", global = true, value_name = "ADDR")]
    pub address: Option<String>,
    /// The folder of our keys in Consul [default: understudy]
    #[arg(long, global = true)]
    pub prefix: Option<String>,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run beside the databases of a node: supervise, register, elect
    Agent(FileArgs),
    /// Run in front: carry clients to the masters
    Proxy(FileArgs),
    /// Check a configuration file and say every fault
    Check {
        /// An agent.toml or proxy.toml
        file: PathBuf,
    },
    /// Show groups, nodes and their state
    Status(StatusArgs),
    /// Make another node master, without losing a write
    Switchover(SwitchoverArgs),
    /// Make a node master although nothing proves its copy complete: the way out when both copies are lost
    Failover(FailoverArgs),
    /// Change no roles, start and kill no database, until `resume`
    Pause {
        /// The group
        group: String,
    },
    /// End a pause; or restore a record that Consul has lost
    Resume(ResumeArgs),
    /// Show or change the policy of a group
    Config(ConfigArgs),
    /// Hand over what a node is master of, stop its databases, deregister them and end its agent
    Drain(DrainArgs),
    /// Throw a node's copy away and clone it anew
    Reinit(ReinitArgs),
    /// Say for every node of a group whether it may be promoted, and if not, by which rule
    Explain(GroupArgs),
    /// Show who was master of a group, since when and why
    History(GroupArgs),
    /// Start a whole group on this machine, kill its master, and show what a client notices
    Demo(DemoArgs),
}

/// A process with a file.
#[derive(Debug, ClapArgs)]
pub struct FileArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// A group.
#[derive(Debug, ClapArgs)]
pub struct GroupArgs {
    /// The group
    pub group: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `status`.
#[derive(Debug, ClapArgs)]
pub struct StatusArgs {
    /// Only this group
    pub group: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show it again every second, until ctrl-c
    #[arg(long)]
    pub watch: bool,
}

/// Options of `switchover`.
#[derive(Debug, ClapArgs)]
pub struct SwitchoverArgs {
    /// The group
    pub group: String,
    /// The node that is to be master [default: the hot replica]
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// Seconds after which the request is void
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// How long transactions that run in a SQL database may go on before they are ended, e.g. 5s; no new ones begin
    /// meanwhile [default: 200ms]
    #[arg(long, value_name = "DURATION", value_parser = grace)]
    pub grace: Option<Duration>,
}

/// New clients are held meanwhile, and not for ever.
fn grace(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_mins(5);
    let grace = config::parse_duration(text)?;
    if grace > LONGEST {
        return Err(format!("{text} is too long; 5m at the most"));
    }
    Ok(grace)
}

/// Options of `failover`.
#[derive(Debug, ClapArgs)]
pub struct FailoverArgs {
    /// The group
    pub group: String,
    /// The node that is to be master
    #[arg(long, value_name = "NODE")]
    pub to: String,
    /// Go on although acknowledged writes may be lost; without it, only what is known of the loss is shown
    #[arg(long)]
    pub accept_data_loss: bool,
    /// Seconds after which the request is void
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `resume`.
#[derive(Debug, ClapArgs)]
pub struct ResumeArgs {
    /// The group
    pub group: String,
    /// Put the record that the nodes remember back into Consul, which has lost it; does not end a pause
    #[arg(long)]
    pub restore_record: bool,
}

/// Options of `config`.
#[derive(Debug, ClapArgs)]
pub struct ConfigArgs {
    /// The group
    pub group: String,
    /// What to do [default: show]
    #[command(subcommand)]
    pub action: Option<ConfigAction>,
}

/// What `config` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigAction {
    /// Show the policy, as a file's [group.NAME] writes it
    Show {
        /// Print JSON, durations in milliseconds
        #[arg(long)]
        json: bool,
    },
    /// Change single settings, such as `detect_after=500ms`
    Set {
        /// The settings
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = setting)]
        settings: Vec<(String, String)>,
    },
    /// Change the policy in $VISUAL or $EDITOR, else vi
    Edit,
}

/// A word of `config set`.
fn setting(word: &str) -> Result<(String, String), String> {
    let (key, value) = word.split_once('=').ok_or("write KEY=VALUE, such as detect_after=500ms")?;
    Ok((key.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
}

/// Options of `drain`.
#[derive(Debug, ClapArgs)]
pub struct DrainArgs {
    /// The node
    pub node: String,
    /// Seconds to wait for its end; it goes on when they are over
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// Options of `reinit`.
#[derive(Debug, ClapArgs)]
pub struct ReinitArgs {
    /// The group
    pub group: String,
    /// The node
    pub node: String,
    /// The node will not return: no longer list it
    #[arg(long)]
    pub forget: bool,
    /// Seconds to wait for the new copy; it goes on when they are over
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// Options of `demo`.
#[derive(Debug, ClapArgs)]
pub struct DemoArgs {
    /// What the nodes run: redis, postgres or mariadb
    #[arg(long, value_name = "ENGINE", default_value = "redis", hide_default_value = true, value_parser = engine)]
    pub engine: Engine,
    /// Leave the folder with configuration, data and logs
    #[arg(long)]
    pub keep: bool,
}

fn engine(text: &str) -> Result<Engine, String> {
    let all = [Engine::Redis, Engine::Postgres, Engine::Mariadb];
    all.into_iter().find(|engine| engine.as_str() == text).ok_or_else(|| "write redis, postgres or mariadb".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_may_stand_after_the_verb() {
        let args = Args::parse_from(["understudy", "status", "--json", "--consul", "10.0.0.1:8500"]);
        assert_eq!(args.consul.address.as_deref(), Some("10.0.0.1:8500"));
    }

    #[test]
    fn a_setting_is_a_key_and_a_value() {
        let args = Args::parse_from(["understudy", "config", "g", "set", "a=1", "b=\"x=y\"", "--consul", "c:1"]);
        let Verb::Config(ConfigArgs { action: Some(ConfigAction::Set { settings }), .. }) = args.verb else {
            panic!("{:?}", args.verb)
        };
        assert_eq!(settings, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x=y".to_owned())]);
        for words in [&["config", "g", "set", "a"][..], &["config", "g", "set"], &["failover", "g"]] {
            assert!(Args::try_parse_from([&["understudy"], words].concat()).is_err(), "{words:?}");
        }
    }
}
