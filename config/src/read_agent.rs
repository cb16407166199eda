//! Reads `agent.toml`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use election::{Address, Durability, GroupName, NodeId, Policy, Reads, WithoutReplica};

use crate::agent::{AgentConfig, Engine, InstanceConfig, NodeConfig};
use crate::claims::{Once, Sockets};
use crate::consul::Environment;
use crate::fault::Place;
use crate::files;
use crate::names;
use crate::read_common;
use crate::reader::{Found, Section};
use crate::settings;

/// The port of an agent's HTTP when the file names none.
pub const DEFAULT_HTTP_PORT: u16 = 7400;

/// In the middle of a range, so that others can be put above and below it.
pub const DEFAULT_PRIORITY: u32 = 100;

/// Ten times the default: room enough to order the nodes of a group, and a slip of the pen shows.
const HIGHEST_PRIORITY: u64 = 1000;

pub(crate) fn agent(root: &mut Section<'_>, environment: Environment<'_>) -> AgentConfig {
    root.need("node", "[node]");
    root.need("instance", "[[instance]]");
    let mut sockets = Sockets::new(root.reader());
    let node = node(root);
    let address = node.address.as_ref().map(|found| found.value.clone()).unwrap_or_default();
    let consul = read_common::consul(root, environment);
    let (http, listen) = read_common::http(root, names::listen_text(&address, DEFAULT_HTTP_PORT));
    match &listen {
        Some(found) => {
            check_listen(root, found, &address);
            sockets.claim(found, &found.value.host, found.value.port);
        }
        None => sockets.reserve(&address, DEFAULT_HTTP_PORT, "the agent's own HTTP"),
    }
    let instances = instances(root, node.data_dir.as_ref(), &mut sockets);
    let groups = groups(root, &instances);
    AgentConfig { node: node.finish(), consul, http, instances, groups }
}

struct Node {
    name: Option<Found<NodeId>>,
    address: Option<Found<String>>,
    zone: Option<Found<String>>,
    data_dir: Option<Found<PathBuf>>,
}

impl Node {
    fn finish(self) -> NodeConfig {
        NodeConfig {
            name: self.name.map(|found| found.value).unwrap_or_default(),
            address: self.address.map(|found| found.value).unwrap_or_default(),
            zone: self.zone.map(|found| found.value),
            data_dir: self.data_dir.map(|found| found.value).unwrap_or_default(),
        }
    }
}

fn node(root: &mut Section<'_>) -> Node {
    let mut section = root.table_or_empty("node");
    if section.place().is_some() {
        section.need("name", "name = \"db1\"");
        section.need("address", "address = \"10.0.0.11\"");
        section.need("data_dir", "data_dir = \"/var/lib/understudy\"");
    }
    let node = Node {
        name: section.parsed("name", names::parse_node),
        address: section.parsed("address", names::parse_reachable),
        zone: section.parsed("zone", names::parse_word),
        data_dir: section.parsed("data_dir", names::parse_path),
    };
    section.finish();
    node
}

/// Peers connect to the node's address: something has to listen there.
fn check_listen(root: &Section<'_>, listen: &Found<Address>, address: &str) {
    let host = &listen.value.host;
    let loopback = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let elsewhere = match (host.parse::<IpAddr>(), address.parse::<IpAddr>()) {
        (Ok(here), Ok(told)) => !here.is_unspecified() && here != told,
        _ => loopback(host) && !loopback(address),
    };
    if !address.is_empty() && elsewhere {
        let write = names::listen_text(address, listen.value.port);
        root.reader().doubt(
            &listen.key,
            Some(listen.place),
            format!("peers connect to node.address, {address}, where nothing would listen; write \"{write}\""),
        );
    }
}

fn instances(
    root: &mut Section<'_>,
    node_dir: Option<&Found<PathBuf>>,
    sockets: &mut Sockets<'_, '_>,
) -> Vec<InstanceConfig> {
    let mut groups = Once::new(root.reader());
    let mut folders: Vec<Found<PathBuf>> = Vec::new();
    let mut instances = Vec::new();
    for mut section in root.tables("instance") {
        let (group, folder, port, instance) = instance(&mut section);
        if let Some(group) = &group {
            groups.claim(group, &group.value, "a node takes part in a group once");
        }
        if let Some(port) = &port {
            sockets.claim(port, EVERYWHERE, instance.port);
        }
        if let Some(folder) = folder {
            check_folder(&section, &folder, node_dir, &folders);
            folders.push(folder);
        }
        section.finish();
        instances.push(instance);
    }
    instances
}

/// An instance is counted as listening on every address: the agent reaches it on loopback, others from outside.
const EVERYWHERE: &str = "0.0.0.0";

fn check_folder(
    section: &Section<'_>,
    folder: &Found<PathBuf>,
    node: Option<&Found<PathBuf>>,
    others: &[Found<PathBuf>],
) {
    let fault = |message: String| section.reader().fault(&folder.key, folder.place, message);
    if node.is_some_and(|node| node.value.starts_with(&folder.value)) {
        fault("holds the agent's own memory, `node.data_dir`; choose a folder of the instance's own".to_owned());
    }
    let meets = |other: &Path| other.starts_with(&folder.value) || folder.value.starts_with(other);
    if let Some(other) = others.iter().find(|other| meets(&other.value)) {
        let line = other.place.line;
        fault(format!("shares its files with the data_dir of line {line}; choose a folder of the instance's own"));
    }
}

type Read = (Option<Found<GroupName>>, Option<Found<PathBuf>>, Option<Found<u64>>, InstanceConfig);

fn instance(section: &mut Section<'_>) -> Read {
    section.need("group", "group = \"backend-redis\"");
    section.need("engine", "engine = \"redis\"");
    section.need("port", "port = 6379");
    section.need("data_dir", "data_dir = \"/var/lib/understudy/backend-redis\"");
    let group = section.parsed("group", names::parse_group);
    let engines = [Engine::Redis, Engine::Postgres, Engine::Mariadb].map(|engine| (engine.as_str(), engine));
    let engine = section.choice("engine", &engines).map(|found| found.value);
    let port = section.number("port", "a port", 1..=65535);
    let folder = section.parsed("data_dir", names::parse_path);
    let priority = section.number("priority", "a priority", 0..=HIGHEST_PRIORITY);
    let bin = section.parsed("bin", |text| {
        let path = names::parse_path(text)?;
        files::check_program(&path).map(|()| path)
    });
    let instance = InstanceConfig {
        group: group.as_ref().map(|found| found.value.clone()).unwrap_or_default(),
        engine: engine.unwrap_or_default(),
        port: port.as_ref().and_then(|found| u16::try_from(found.value).ok()).unwrap_or_default(),
        data_dir: folder.as_ref().map(|found| found.value.clone()).unwrap_or_default(),
        priority: priority.and_then(|found| u32::try_from(found.value).ok()).unwrap_or(DEFAULT_PRIORITY),
        adopt: section.boolean("adopt").is_some_and(|found| found.value),
        bin: bin.map(|found| found.value),
        password_file: read_common::secret_file(section, "password_file").map(|found| found.value),
        settings: engine_settings(section, engine),
    };
    (group, folder, port, instance)
}

fn engine_settings(section: &mut Section<'_>, engine: Option<Engine>) -> BTreeMap<String, String> {
    let found = section.settings("settings");
    let mut once = Once::new(section.reader());
    for setting in &found {
        settings::check(section.reader(), setting, engine);
        let name = setting.value.0.to_ascii_lowercase();
        once.claim(setting, name, "engines do not tell capitals apart; keep one of the two");
    }
    found.into_iter().map(|setting| setting.value).collect()
}

fn groups(root: &mut Section<'_>, instances: &[InstanceConfig]) -> BTreeMap<GroupName, Policy> {
    let known: Vec<&str> = instances.iter().map(|instance| instance.group.as_str()).collect();
    let base = |instance: &InstanceConfig| Policy { fsync: instance.engine.is_always_on_disk(), ..Policy::default() };
    let mut groups: BTreeMap<GroupName, Policy> =
        instances.iter().map(|instance| (instance.group.clone(), base(instance))).collect();
    for (name, mut section) in root.named_tables("group") {
        if !known.contains(&name.value.as_str()) {
            let near = names::near_group(&name.value, &known);
            let near = if near.is_empty() { "; add one or leave the table out".to_owned() } else { near };
            let message = format!("no [[instance]] here is of this group{near}");
            root.reader().doubt(&name.key, Some(name.place), message);
        }
        let name = GroupName(name.value);
        let base = groups.get(&name).cloned().unwrap_or_default();
        let policy = policy(&mut section, &base);
        if base.fsync && !policy.fsync {
            let message = "what this engine acknowledges is always on disk; leave the key out";
            section.reader().fault(&format!("{}.fsync", section.path()), section.place().unwrap_or(NOWHERE), message);
        }
        section.finish();
        groups.insert(name, policy);
    }
    groups
}

/// The keys of a policy; what a key does not say is as in `base`.
pub(crate) fn policy(section: &mut Section<'_>, base: &Policy) -> Policy {
    let millis = |found: Found<Duration>| u64::try_from(found.value.as_millis()).ok();
    let durability = section.choice("durability", &[("sync", Durability::Sync), ("async", Durability::Async)]);
    let without = [("continue", WithoutReplica::Continue), ("block", WithoutReplica::Block)];
    let without = section.choice("without_replica", &without);
    let fsync = section.boolean("fsync");
    let reads = section.choice("reads", &[("local", Reads::Local), ("durable", Reads::Durable)]);
    if durability.as_ref().map_or(base.durability, |found| found.value) == Durability::Async {
        let block = without.as_ref().map_or(base.without_replica, |found| found.value) == WithoutReplica::Block;
        let durable = reads.as_ref().map_or(base.reads, |found| found.value) == Reads::Durable;
        let refuse = |found: Option<(&str, Place)>, what: &str| {
            let (key, place) = found.or(durability.as_ref().map(at)).unwrap_or(("durability", NOWHERE));
            let message = format!("{what} only where the hot replica is waited for; write `durability = \"sync\"`");
            section.reader().fault(key, place, message);
        };
        if block {
            refuse(without.as_ref().map(at), "\"block\" can be promised");
        }
        if durable {
            refuse(reads.as_ref().map(at), "\"durable\" can be promised");
        }
    }
    Policy {
        durability: durability.map_or(base.durability, |found| found.value),
        without_replica: without.map_or(base.without_replica, |found| found.value),
        fsync: fsync.map_or(base.fsync, |found| found.value),
        reads: reads.map_or(base.reads, |found| found.value),
        detect_after: section
            .duration("detect_after", DETECT_AFTER, "shorter is a busy machine's ordinary pause, longer is an outage")
            .and_then(millis)
            .unwrap_or(base.detect_after),
        hang_after: section
            .duration("hang_after", HANG_AFTER, "shorter would kill a database for one slow command")
            .and_then(millis)
            .unwrap_or(base.hang_after),
        flap_pause: section
            .duration("flap_pause", FLAP_PAUSE, "shorter lets the role fly between two nodes, longer is an outage")
            .and_then(millis)
            .unwrap_or(base.flap_pause),
        max_lag: section.number("max_lag", "a number of bytes", 0..=MAX_LAG).map_or(base.max_lag, |found| found.value),
        // An operator's command pauses a group, no file does.
        paused: base.paused,
    }
}

fn at<T>(found: &Found<T>) -> (&str, Place) {
    (&found.key, found.place)
}

/// Where a fault stands that only what was there before explains.
const NOWHERE: Place = Place { line: 1, column: 1 };

const DETECT_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(60);
const HANG_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const FLAP_PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// A tebibyte: a copy further behind has to be cloned anew anyway.
const MAX_LAG: u64 = 1 << 40;
