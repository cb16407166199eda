//! Reads `proxy.toml`.

use std::collections::BTreeMap;
use std::time::Duration;

use election::{Address, GroupName};

use crate::claims::{Once, Sockets};
use crate::consul::Environment;
use crate::names;
use crate::proxy::{
    Announce, Distribution, Hash, ListenerConfig, ListenerRole, Protocol, ProxyConfig, ProxyGroup, ProxyNode,
    SentinelConfig, Sharding,
};
use crate::read_common;
use crate::reader::{Found, Section};
use crate::settings;

/// Where a proxy's HTTP is when the file names nothing: for this machine's own scraper, and nobody else.
pub const DEFAULT_HTTP_LISTEN: (&str, u16) = ("127.0.0.1", 7401);

/// Longer than any takeover that succeeds, shorter than a client's patience.
pub const DEFAULT_HOLD: Duration = Duration::from_secs(10);

const HOLD: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);

pub(crate) fn proxy(root: &mut Section<'_>, environment: Environment<'_>) -> ProxyConfig {
    root.need("proxy", "[proxy]");
    root.need("listener", "[[listener]]");
    let mut sockets = Sockets::new(root.reader());
    let proxy = proxy_node(root);
    let consul = read_common::consul(root, environment);
    let (host, port) = DEFAULT_HTTP_LISTEN;
    let (http, listen) = read_common::http(root, names::listen_text(host, port));
    match &listen {
        Some(found) => sockets.claim(found, &found.value.host, found.value.port),
        None => sockets.reserve(host, port, "the proxy's own HTTP"),
    }
    let listeners = listeners(root, &mut sockets);
    let groups = groups(root, &listeners);
    let sentinel = sentinel(root, &mut sockets);
    ProxyConfig { proxy, consul, http, listeners, groups, sentinel }
}

fn proxy_node(root: &mut Section<'_>) -> ProxyNode {
    let mut section = root.table_or_empty("proxy");
    if section.place().is_some() {
        section.need("name", "name = \"proxy1\"");
        section.need("address", "address = \"10.0.0.21\"");
    }
    let node = ProxyNode {
        name: section.parsed("name", names::parse_proxy).map(|found| found.value).unwrap_or_default(),
        address: section.parsed("address", names::parse_reachable).map(|found| found.value).unwrap_or_default(),
    };
    section.finish();
    node
}

fn listeners(root: &mut Section<'_>, sockets: &mut Sockets<'_, '_>) -> Vec<ListenerConfig> {
    let read = |mut section: Section<'_>| {
        let listener = listener(&mut section, sockets);
        section.finish();
        listener
    };
    root.tables("listener").into_iter().map(read).collect()
}

fn listener(section: &mut Section<'_>, sockets: &mut Sockets<'_, '_>) -> ListenerConfig {
    section.need("listen", "listen = \"0.0.0.0:6380\"");
    section.need("groups", "groups = [\"backend-redis\"]");
    let listen = listen(section, sockets);
    let groups = listener_groups(section);
    let roles = [("master", ListenerRole::Master), ("replica", ListenerRole::Replica)];
    let role = section.choice("role", &roles).map(|found| found.value);
    let protocols = [("tcp", Protocol::Tcp), ("redis", Protocol::Redis), ("postgres", Protocol::Postgres)];
    let protocol = section.choice("protocol", &protocols);
    let hold = section.duration("hold", HOLD, "shorter ends before a takeover does, longer outlasts every client");
    let sharding = sharding(section, groups.as_deref());
    check_shards(section, groups.as_deref(), protocol.as_ref());
    ListenerConfig {
        listen,
        groups: groups.unwrap_or_default().into_iter().map(|found| found.value).collect(),
        role: role.unwrap_or_default(),
        protocol: protocol.map(|found| found.value).unwrap_or_default(),
        hold: hold.map_or(DEFAULT_HOLD, |found| found.value),
        sharding,
    }
}

fn listen(section: &mut Section<'_>, sockets: &mut Sockets<'_, '_>) -> String {
    let found: Option<Found<Address>> = section.parsed("listen", names::parse_listen);
    if let Some(found) = &found {
        sockets.claim(found, &found.value.host, found.value.port);
    }
    found.map(|found| names::listen_text(&found.value.host, found.value.port)).unwrap_or_default()
}

fn listener_groups(section: &mut Section<'_>) -> Option<Vec<Found<GroupName>>> {
    let groups = section.list("groups", names::parse_group)?;
    let mut once = Once::new(section.reader());
    for group in &groups {
        once.claim(group, &group.value, "name each group of a listener once");
    }
    Some(groups)
}

/// Only the Redis protocol shows the key by which one of several groups is chosen.
fn check_shards(section: &Section<'_>, groups: Option<&[Found<GroupName>]>, protocol: Option<&Found<Protocol>>) {
    let Some([_, second, ..]) = groups else { return };
    let message = "several groups are sharded, which only the Redis protocol can be; write `protocol = \"redis\"`, \
                   or one group";
    match protocol {
        Some(found) if found.value == Protocol::Redis => {}
        Some(_) => section.reader().fault(&second.key, second.place, message),
        // What is written there is a fault already.
        None if section.has("protocol") => {}
        None => section.reader().doubt(&second.key, Some(second.place), message),
    }
}

fn sharding(section: &mut Section<'_>, groups: Option<&[Found<GroupName>]>) -> Option<Sharding> {
    let several = groups.is_some_and(|groups| groups.len() > 1);
    let Some(mut table) = section.table("sharding") else {
        return several.then(|| Sharding {
            hash: Hash::default(),
            distribution: Distribution::default(),
            hash_tag: None,
        });
    };
    if let (Some(place), Some([_])) = (table.place(), groups) {
        let message = "one group has nothing to be sharded over; name several in `groups`, or leave this table out";
        section.reader().fault(table.path(), place, message);
    }
    let distributions =
        [("ketama", Distribution::Ketama), ("modula", Distribution::Modula), ("random", Distribution::Random)];
    let sharding = Sharding {
        hash: table.choice("hash", &HASHES).map(|found| found.value).unwrap_or_default(),
        distribution: table.choice("distribution", &distributions).map(|found| found.value).unwrap_or_default(),
        hash_tag: table.parsed("hash_tag", settings::parse_hash_tag).map(|found| found.value),
    };
    table.finish();
    Some(sharding)
}

const HASHES: [(&str, Hash); 12] = [
    ("one_at_a_time", Hash::OneAtATime),
    ("md5", Hash::Md5),
    ("crc16", Hash::Crc16),
    ("crc32", Hash::Crc32),
    ("crc32a", Hash::Crc32a),
    ("fnv1_64", Hash::Fnv1_64),
    ("fnv1a_64", Hash::Fnv1a64),
    ("fnv1_32", Hash::Fnv1_32),
    ("fnv1a_32", Hash::Fnv1a32),
    ("hsieh", Hash::Hsieh),
    ("murmur", Hash::Murmur),
    ("jenkins", Hash::Jenkins),
];

fn groups(root: &mut Section<'_>, listeners: &[ListenerConfig]) -> BTreeMap<GroupName, ProxyGroup> {
    let known: Vec<&str> = listeners.iter().flat_map(|listener| &listener.groups).map(GroupName::as_str).collect();
    let mut groups = BTreeMap::new();
    for (name, mut section) in root.named_tables("group") {
        if !known.contains(&name.value.as_str()) {
            let near = names::near_group(&name.value, &known);
            let near = if near.is_empty() { "; add one or leave the table out".to_owned() } else { near };
            let message = format!("no [[listener]] here is for this group{near}");
            root.reader().doubt(&name.key, Some(name.place), message);
        }
        let user = section.parsed("user", names::parse_user).map(|found| found.value);
        if user.is_some() {
            section.need("password_file", "password_file = \"…\"` beside `user");
        }
        let password_file = read_common::secret_file(&mut section, "password_file").map(|found| found.value);
        section.finish();
        groups.insert(GroupName(name.value), ProxyGroup { user, password_file });
    }
    groups
}

fn sentinel(root: &mut Section<'_>, sockets: &mut Sockets<'_, '_>) -> Option<SentinelConfig> {
    let mut section = root.table("sentinel")?;
    section.need("listen", "listen = \"0.0.0.0:26379\"");
    let listen = listen(&mut section, sockets);
    let announce = [("proxy", Announce::Proxy), ("instance", Announce::Instance)];
    let sentinel = SentinelConfig {
        listen,
        announce: section.choice("announce", &announce).map(|found| found.value).unwrap_or_default(),
        password_file: read_common::secret_file(&mut section, "password_file").map(|found| found.value),
    };
    section.finish();
    Some(sentinel)
}
