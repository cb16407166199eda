//! Where Consul is and how to be let in: the `[consul]` table, the environment, the command line.

use std::path::PathBuf;

use election::Secret;

use crate::fault::{Fault, Faults};
use crate::files;
use crate::names;
use crate::reader::quoted;

/// The Consul agent on the same machine, where Consul's own command looks too.
pub const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8500";

/// The folder of all our keys in Consul.
pub const DEFAULT_PREFIX: &str = "understudy";

/// How to reach Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulConfig {
    /// `http://host:port` or `https://host:port`, tried in order, at least one.
    pub addresses: Vec<String>,
    /// The folder of all our keys, without a slash at either end.
    pub prefix: String,
    /// The ACL token, when the environment gave it. At most one of this and `token_file` is there.
    pub token: Option<Secret>,
    /// The file that holds the ACL token.
    pub token_file: Option<PathBuf>,
    /// The PEM file of the authorities that may have signed Consul's certificate; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// The PEM file of our own certificate, for Consul servers that ask for one. There exactly when `key_file` is.
    pub cert_file: Option<PathBuf>,
    /// The PEM file of that certificate's key.
    pub key_file: Option<PathBuf>,
    /// The datacenter asked for; that of the Consul agent when absent.
    pub datacenter: Option<String>,
}

impl Default for ConsulConfig {
    fn default() -> Self {
        Self {
            addresses: vec![DEFAULT_ADDRESS.to_owned()],
            prefix: DEFAULT_PREFIX.to_owned(),
            token: None,
            token_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            datacenter: None,
        }
    }
}

impl ConsulConfig {
    /// What the environment says, and the defaults.
    pub fn from_env() -> Result<Self, Faults> {
        Self::for_command(None, None)
    }

    /// For a command without a file: what its options `--consul` (the scheme may be left out) and `--prefix` say, else
    /// the environment, else the defaults.
    pub fn for_command(address: Option<&str>, prefix: Option<&str>) -> Result<Self, Faults> {
        for_command(address, prefix, &process_environment)
    }
}

/// Gives the value of an environment variable; empty ones count as unset, as for Consul's own command.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of this process.
pub(crate) fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What a file or the command line says about Consul.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) addresses: Option<Vec<String>>,
    pub(crate) prefix: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) datacenter: Option<String>,
}

fn for_command(
    address: Option<&str>,
    prefix: Option<&str>,
    environment: Environment<'_>,
) -> Result<ConsulConfig, Faults> {
    let mut faults = Vec::new();
    let mut given = Given::default();
    if let Some(text) = address {
        let scheme = default_scheme(environment).unwrap_or(HTTP);
        given.addresses = keep(&mut faults, "--consul", parse_address(text, scheme)).map(|address| vec![address]);
    }
    if let Some(text) = prefix {
        given.prefix = keep(&mut faults, "--prefix", parse_prefix(text));
    }
    match overlay(given, environment) {
        Ok(config) if faults.is_empty() => Ok(config),
        Ok(_) => Err(Faults::new(faults)),
        Err(more) => Err(Faults::new(faults.into_iter().chain(more).collect())),
    }
}

/// Lets the environment say what was not given. What was given is never changed by it.
pub(crate) fn overlay(given: Given, environment: Environment<'_>) -> Result<ConsulConfig, Vec<Fault>> {
    let mut faults = Vec::new();
    let addresses = given.addresses.unwrap_or_else(|| vec![environment_address(&mut faults, environment)]);
    let mut file = |name: &str| {
        let path = keep(&mut faults, name, names::parse_path(&environment(name)?))?;
        keep(&mut faults, name, files::check_readable(&path)).map(|()| path)
    };
    let (mut token, mut token_file) = (None, given.token_file);
    if token_file.is_none() {
        // Consul's own command, too, prefers the file.
        token_file = file("CONSUL_HTTP_TOKEN_FILE");
        token = environment("CONSUL_HTTP_TOKEN").filter(|_| token_file.is_none()).map(Secret::new);
    }
    let ca_file = given.ca_file.or_else(|| file("CONSUL_CACERT"));
    let (mut cert_file, mut key_file) = (given.cert_file, given.key_file);
    if cert_file.is_none() && key_file.is_none() {
        (cert_file, key_file) = (file("CONSUL_CLIENT_CERT"), file("CONSUL_CLIENT_KEY"));
        if faults.is_empty() && cert_file.is_some() != key_file.is_some() {
            faults.push(fault(
                "CONSUL_CLIENT_CERT",
                "needs CONSUL_CLIENT_KEY beside it, and the other way round; set both",
            ));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let prefix = given.prefix.unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
    Ok(ConsulConfig {
        addresses,
        prefix,
        token,
        token_file,
        ca_file,
        cert_file,
        key_file,
        datacenter: given.datacenter,
    })
}

fn environment_address(faults: &mut Vec<Fault>, environment: Environment<'_>) -> String {
    let scheme = keep(faults, "CONSUL_HTTP_SSL", default_scheme(environment)).unwrap_or(HTTP);
    let Some(text) = environment("CONSUL_HTTP_ADDR") else {
        return DEFAULT_ADDRESS.replacen(HTTP, scheme, 1);
    };
    keep(faults, "CONSUL_HTTP_ADDR", parse_address(&text, scheme)).unwrap_or_default()
}

fn default_scheme(environment: Environment<'_>) -> Result<&'static str, String> {
    // The spellings that Consul's own command takes.
    match environment("CONSUL_HTTP_SSL").as_deref() {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(HTTPS),
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(HTTP),
        Some(other) => Err(format!("{} is neither true nor false; write one of them", quoted(other))),
    }
}

const HTTP: &str = "http";
const HTTPS: &str = "https";

fn keep<T>(faults: &mut Vec<Fault>, name: &str, result: Result<T, String>) -> Option<T> {
    result.map_err(|message| faults.push(fault(name, message))).ok()
}

fn fault(name: &str, message: impl Into<String>) -> Fault {
    Fault { file: name.to_owned(), place: None, key: String::new(), message: message.into() }
}

/// Reads an address of a file: with scheme and port, so that nobody has to guess what an absent one means.
pub(crate) fn parse_file_address(text: &str) -> Result<String, String> {
    if !text.contains("://") {
        return Err(format!("{} has no scheme; write http:// or https:// before it", quoted(text)));
    }
    let address = parse_address(text, HTTP)?;
    let authority = address.split_once("://").map_or("", |(_, rest)| rest);
    if names::parse_listen(authority).is_err() {
        return Err(format!("{} has no port; Consul's is 8500, or 8501 with https", quoted(text)));
    }
    Ok(address)
}

/// Reads an address whose scheme, and port, may be left out.
fn parse_address(text: &str, default_scheme: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or((default_scheme, text));
    let scheme = scheme.to_ascii_lowercase();
    if rest.contains('@') {
        // Not quoted: it may be a password.
        return Err("has a user or password in it; write http://host:port, and give a token by file".to_owned());
    }
    if scheme != HTTP && scheme != HTTPS {
        return Err(format!("{} is not understood; write http://host:port or https://host:port", quoted(text)));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let alone = authority.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(authority);
    let valid = names::parse_listen(authority).is_ok()
        || (names::parse_reachable(alone).is_ok() && alone.contains(':') == authority.starts_with('['));
    if !valid {
        return Err(format!("{} is no address of Consul; write http://host:port", quoted(text)));
    }
    Ok(format!("{scheme}://{authority}"))
}

/// Reads the folder of our keys in Consul.
pub(crate) fn parse_prefix(text: &str) -> Result<String, String> {
    let part = |part: &str| {
        !part.is_empty()
            && part.chars().any(|c| c != '.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    if text.len() <= PREFIX_CHARS && text.split('/').all(part) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is no folder in Consul; write names of A-Z, a-z, 0-9, _, . and - with / between them, none at the ends",
        quoted(text)
    ))
}

/// Consul takes keys of 512 bytes; ours put up to 140 behind the prefix.
const PREFIX_CHARS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn told(variables: &[(&str, &str)], address: Option<&str>) -> Result<ConsulConfig, String> {
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for_command(address, None, &|name| variables.get(name).cloned()).map_err(|faults| faults.to_string())
    }

    #[test]
    fn the_address_comes_from_option_then_environment_then_default() {
        for (variables, option, address) in [
            (&[][..], None, "http://127.0.0.1:8500"),
            (&[("CONSUL_HTTP_SSL", "true")], None, "https://127.0.0.1:8500"),
            (&[("CONSUL_HTTP_ADDR", "consul:8500")], None, "http://consul:8500"),
            (&[("CONSUL_HTTP_ADDR", "consul"), ("CONSUL_HTTP_SSL", "1")], None, "https://consul"),
            (&[("CONSUL_HTTP_ADDR", "http://consul/"), ("CONSUL_HTTP_SSL", "1")], None, "http://consul"),
            (&[("CONSUL_HTTP_ADDR", "elsewhere:1")], Some("10.0.0.1:8500"), "http://10.0.0.1:8500"),
            (&[], Some("HTTPS://[::1]:8501"), "https://[::1]:8501"),
        ] {
            assert_eq!(told(variables, option).unwrap().addresses, [address]);
        }
    }

    #[test]
    fn faulty_variables_are_all_named() {
        let message = told(
            &[
                ("CONSUL_HTTP_ADDR", "unix:///run/consul.sock"),
                ("CONSUL_HTTP_SSL", "perhaps"),
                ("CONSUL_CACERT", "/nowhere/ca.pem"),
            ],
            None,
        )
        .unwrap_err();
        for name in ["CONSUL_HTTP_ADDR: ", "CONSUL_HTTP_SSL: ", "CONSUL_CACERT: ", "3 faults"] {
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn passwords_in_an_address_are_not_repeated() {
        let message = told(&[("CONSUL_HTTP_ADDR", "http://me:hunter2@consul:8500")], None).unwrap_err();
        assert!(message.contains("user or password") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn the_token_is_kept_out_of_sight() {
        let config = told(&[("CONSUL_HTTP_TOKEN", "s3cr3t")], None).unwrap();
        assert_eq!(config.token.as_ref().unwrap().reveal(), "s3cr3t");
        assert!(!format!("{config:?}").contains("s3cr3t"));
    }

    #[test]
    fn what_was_given_outweighs_the_environment() {
        let given = Given { token_file: Some("/etc/token".into()), ..Given::default() };
        let config = overlay(given, &|name| (name == "CONSUL_HTTP_TOKEN").then(|| "other".to_owned())).unwrap();
        assert_eq!((config.token, config.token_file), (None, Some("/etc/token".into())));
    }

    #[test]
    fn a_client_certificate_needs_its_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(told(&[("CONSUL_CLIENT_CERT", path)], None).unwrap_err().contains("needs CONSUL_CLIENT_KEY"));
        let config = told(&[("CONSUL_CLIENT_CERT", path), ("CONSUL_CLIENT_KEY", path)], None).unwrap();
        assert_eq!(config.cert_file, config.key_file);
    }

    #[test]
    fn an_address_in_a_file_is_whole() {
        for (text, why) in [
            ("127.0.0.1:8500", "no scheme"),
            ("http://127.0.0.1", "no port"),
            ("http://", "no address"),
            ("http://a b:8500", "no address"),
            ("http://consul:8500/v1", "no address"),
            ("ftp://consul:8500", "not understood"),
        ] {
            let message = parse_file_address(text).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
        assert_eq!(parse_file_address("http://consul:8500/").unwrap(), "http://consul:8500");
    }

    #[test]
    fn a_prefix_is_a_folder() {
        for text in ["understudy", "ha/prod-1", "a.b"] {
            assert_eq!(parse_prefix(text).unwrap(), text);
        }
        for text in ["", "/", "a/", "/a", "a//b", "..", "a b", "a?b"] {
            assert!(parse_prefix(text).is_err(), "{text}");
        }
    }
}
