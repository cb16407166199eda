//! Names, addresses and paths: what they may look like, and why.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};

use election::{Address, GroupName, NodeId};

use crate::near;
use crate::reader::quoted;

/// What an agent answers at the first step of a URL's path. A group of that name could not be asked for.
pub const RESERVED_GROUPS: [&str; 17] = [
    "status",
    "metrics",
    "healthz",
    "readyz",
    "primary",
    "replica",
    "synchronous",
    "read-only",
    "liveness",
    "readiness",
    "api",
    "master",
    "hot",
    "spare",
    "health",
    "peer",
    "proxies",
];

/// A name is one label of a DNS name in Consul, which may not be longer.
const NAME_CHARS: usize = 63;

/// A DNS name may not be longer.
const HOST_CHARS: usize = 253;

/// Reads the name of a group.
pub fn parse_group(text: &str) -> Result<GroupName, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !is_name(text, allowed) {
        return Err(format!(
            "{} is not a group's name; write 1 to {NAME_CHARS} of the characters a-z, 0-9 and -",
            quoted(text)
        ));
    }
    if RESERVED_GROUPS.contains(&text) {
        return Err(format!(
            "\"{text}\" is a path of the agent's own HTTP; choose another name, such as \"{text}-db\""
        ));
    }
    Ok(GroupName::from(text))
}

/// Reads the name of a node.
pub(crate) fn parse_node(text: &str) -> Result<NodeId, String> {
    parse_member(text, "node").map(|name| NodeId::from(name.as_str()))
}

/// Reads the name of a proxy.
pub(crate) fn parse_proxy(text: &str) -> Result<String, String> {
    parse_member(text, "proxy")
}

fn parse_member(text: &str, what: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    // `.` and `..` would climb in Consul's key paths and in URLs.
    if is_name(text, allowed) && text.chars().any(|c| c != '.') {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is not a {what}'s name; write 1 to {NAME_CHARS} of the characters A-Z, a-z, 0-9, _, . and -",
        quoted(text)
    ))
}

/// Reads a word that is only compared and shown: a zone, a datacenter.
pub(crate) fn parse_word(text: &str) -> Result<String, String> {
    if is_name(text, |c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Ok(text.to_owned());
    }
    Err(format!("{} cannot stand here; write 1 to {NAME_CHARS} of A-Z, a-z, 0-9, _, . and -", quoted(text)))
}

/// Reads the name of a database account.
pub(crate) fn parse_user(text: &str) -> Result<String, String> {
    if is_name(text, |c| c.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(format!("{} is not an account's name; write 1 to {NAME_CHARS} visible ASCII characters", quoted(text)))
}

fn is_name(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    (1..=NAME_CHARS).contains(&text.len()) && text.chars().all(allowed)
}

/// Reads an address that others are told: a host without port that names one machine.
pub(crate) fn parse_reachable(text: &str) -> Result<String, String> {
    if text.contains("://") {
        return Err(format!("{} is a URL; write the host alone", quoted(text)));
    }
    if parse_listen(text).is_ok() {
        return Err(format!("{} has a port; write the host alone", quoted(text)));
    }
    let host = parse_host(text)?;
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(format!(
            "\"{host}\" means every address of this machine, so nobody else can connect to it; write the one by which \
             others reach it"
        )),
        Ok(ip) if ip.is_multicast() => Err(format!("\"{host}\" is a multicast address; write a host's own")),
        _ => Ok(host),
    }
}

fn parse_host(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let fault =
        || format!("{} is neither a host name nor an IP address; write one, such as \"10.0.0.11\"", quoted(text));
    let label = |label: &str| is_name(label, |c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let labels: Vec<&str> = text.split('.').collect();
    // No top-level domain is a number: `10.0.0` and `10.0.0.256` are slips in an IP address.
    let numeric = labels.last().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    if text.len() > HOST_CHARS || numeric || !labels.into_iter().all(label) {
        return Err(fault());
    }
    Ok(text.to_owned())
}

/// Reads `host:port`; an IPv6 host stands in brackets.
pub fn parse_listen(text: &str) -> Result<Address, String> {
    let fault = |why: &str| {
        format!("{} {why}; write host:port, such as \"0.0.0.0:6380\", an IPv6 host in brackets", quoted(text))
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(|| fault("has no port"))?;
    let port = port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| fault("has no port from 1 to 65535"))?;
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let ip = inner.parse::<Ipv6Addr>().map_err(|_| fault("has no IPv6 address in its brackets"))?;
        return Ok(Address::new(ip.to_string(), port));
    }
    if host.contains(':') {
        return Err(fault("has an IPv6 address without brackets"));
    }
    if host.is_empty() {
        return Err(fault("has no host"));
    }
    parse_host(host).map(|host| Address::new(host, port)).map_err(|_| fault("has no valid host"))
}

/// `host:port`, an IPv6 host in brackets.
pub(crate) fn listen_text(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether the host stands for every address of the machine.
pub(crate) fn is_wildcard(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Reads a path. A relative one would depend on where the process is started.
pub(crate) fn parse_path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if text.chars().any(char::is_control) {
        return Err(format!("{} holds a control character; write a path without", quoted(text)));
    }
    if !path.is_absolute() {
        return Err(format!("{} is not a whole path; write it from / on", quoted(text)));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{} climbs with ..; write the path itself", quoted(text)));
    }
    // Collected anew, `/a//b/` and `/a/./b` are both `/a/b` and compare equal.
    Ok(path.components().collect())
}

/// The known group that `name` is most likely a slip of, as the end of a sentence.
pub(crate) fn near_group(name: &str, groups: &[&str]) -> String {
    near::nearest(name, groups).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_names_are_lower_case_and_no_paths() {
        for name in ["a", "backend-redis", "7", &"x".repeat(63)] {
            assert_eq!(parse_group(name).unwrap().as_str(), name);
        }
        for name in ["", "A", "a_b", "a.b", "ä", &"x".repeat(64), "a/b", "a b"] {
            assert!(parse_group(name).unwrap_err().contains("not a group's name"), "{name}");
        }
        for name in RESERVED_GROUPS {
            assert!(parse_group(name).unwrap_err().contains("HTTP"), "{name}");
        }
    }

    #[test]
    fn node_names_may_not_climb() {
        for name in ["db1", "Db_1.example-com", "..a"] {
            assert_eq!(parse_node(name).unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "a/b", "a b", "a:1"] {
            assert!(parse_node(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_listen_address_has_host_and_port() {
        for (text, host, port) in [
            ("0.0.0.0:6380", "0.0.0.0", 6380),
            ("db-1.example.com:1", "db-1.example.com", 1),
            ("[::1]:65535", "::1", 65535),
        ] {
            assert_eq!(parse_listen(text).unwrap(), Address::new(host, port));
            assert_eq!(listen_text(host, port), text);
        }
        for (text, why) in [
            ("6380", "no port"),
            (":6380", "no host"),
            ("a:", "no port from"),
            ("a:0", "no port from"),
            ("a:65536", "no port from"),
            ("::1:80", "brackets"),
            ("[a]:80", "IPv6"),
            ("a b:80", "valid host"),
        ] {
            let message = parse_listen(text).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
    }

    #[test]
    fn an_address_for_others_names_one_machine() {
        for text in ["10.0.0.11", "::1", "fe80::1", "db1", "db1.example.com", "127.0.0.1"] {
            assert_eq!(parse_reachable(text).unwrap(), text);
        }
        for (text, why) in [
            ("0.0.0.0", "every address"),
            ("::", "every address"),
            ("10.0.0.11:6379", "has a port"),
            ("http://db1", "URL"),
            ("10.0.0.256", "neither"),
            ("10.0.0", "neither"),
            ("224.0.0.1", "multicast"),
            ("", "neither"),
            ("db1..com", "neither"),
        ] {
            let message = parse_reachable(text).unwrap_err();
            assert!(message.contains(why), "{text}: {message}");
        }
    }

    #[test]
    fn equal_paths_compare_equal() {
        assert_eq!(parse_path("/a//b/./").unwrap(), parse_path("/a/b").unwrap());
        for text in ["", "a", "./a", "~/a", "/a/../b", "/a\nb"] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }
}
