//! From a path to a value, or to every fault of the file.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use crate::agent::AgentConfig;
use crate::consul::{Environment, process_environment};
use crate::fault::{Fault, Faults, Loaded};
use crate::files;
use crate::proxy::ProxyConfig;
use crate::reader::{self, Section};
use crate::{read_agent, read_proxy};

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An agent's.
    Agent,
    /// A proxy's.
    Proxy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Agent => "agent",
            Kind::Proxy => "proxy",
        })
    }
}

/// Reads an agent's file. Where it says nothing about Consul, the environment may.
pub fn load_agent(path: impl AsRef<Path>) -> Result<Loaded<AgentConfig>, Faults> {
    let (file, text) = open(path.as_ref())?;
    must_be(Kind::Agent, &file, &text)?;
    read_agent(&file, &text, &process_environment).map(|(loaded, _)| loaded)
}

/// Reads a proxy's file. Where it says nothing about Consul, the environment may.
pub fn load_proxy(path: impl AsRef<Path>) -> Result<Loaded<ProxyConfig>, Faults> {
    let (file, text) = open(path.as_ref())?;
    must_be(Kind::Proxy, &file, &text)?;
    read_proxy(&file, &text, &process_environment).map(|(loaded, _)| loaded)
}

/// Whether a file is faultless, and whose it is. The environment plays no part: it may be another one at the start.
pub fn check(path: impl AsRef<Path>) -> Result<Kind, Faults> {
    let (file, text) = open(path.as_ref())?;
    check_text(&file, &text)
}

/// Reads as an agent's file; also tells which keys there are.
pub(crate) fn read_agent(
    file: &str,
    text: &str,
    environment: Environment<'_>,
) -> Result<(Loaded<AgentConfig>, BTreeSet<String>), Faults> {
    reader::read(file, text, |root: &mut Section<'_>| read_agent::agent(root, environment))
}

/// Reads as a proxy's file; also tells which keys there are.
pub(crate) fn read_proxy(
    file: &str,
    text: &str,
    environment: Environment<'_>,
) -> Result<(Loaded<ProxyConfig>, BTreeSet<String>), Faults> {
    reader::read(file, text, |root: &mut Section<'_>| read_proxy::proxy(root, environment))
}

pub(crate) fn check_text(file: &str, text: &str) -> Result<Kind, Faults> {
    let silent = |_: &str| None;
    let kind = kind(text).map_err(|message| whole(file, message))?;
    match kind {
        Some(Kind::Agent) => read_agent(file, text, &silent).map(|_| Kind::Agent),
        Some(Kind::Proxy) => read_proxy(file, text, &silent).map(|_| Kind::Proxy),
        // Its kind is in a part that cannot be read: then that is what has to be told.
        None => Err(reader::read(file, text, |_| ()).err().unwrap_or_else(|| whole(file, NEITHER.to_owned()))),
    }
}

const NEITHER: &str = "has neither [node] and [[instance]], as an agent's file has, nor [proxy] and [[listener]], as a \
                       proxy's has; begin with one of them";

/// Told by the tables that only one of the two has; none when it cannot be told.
fn kind(text: &str) -> Result<Option<Kind>, String> {
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    let has = |keys: [&str; 2]| keys.into_iter().any(|key| document.get_ref().contains_key(key));
    match (has(["node", "instance"]), has(["proxy", "listener"])) {
        (true, true) => Err("has tables of an agent's file ([node], [[instance]]) and of a proxy's ([proxy], \
                             [[listener]]); make it two files"
            .to_owned()),
        (true, false) => Ok(Some(Kind::Agent)),
        (false, true) => Ok(Some(Kind::Proxy)),
        (false, false) if errors.is_empty() => Err(NEITHER.to_owned()),
        (false, false) => Ok(None),
    }
}

fn must_be(wanted: Kind, file: &str, text: &str) -> Result<(), Faults> {
    match kind(text) {
        Ok(Some(kind)) if kind != wanted => {
            let whose = if kind == Kind::Agent { "an agent's" } else { "a proxy's" };
            Err(whole(file, format!("is {whose} file; start it with `understudy {kind} --config`")))
        }
        Ok(_) => Ok(()),
        Err(message) => Err(whole(file, message)),
    }
}

fn open(path: &Path) -> Result<(String, String), Faults> {
    let file = path.display().to_string();
    match files::read_text(path) {
        Ok(text) => Ok((file, text)),
        Err(message) => Err(whole(&file, message)),
    }
}

fn whole(file: &str, message: String) -> Faults {
    Faults::new(vec![Fault { file: file.to_owned(), place: None, key: String::new(), message }])
}
