//! The reader as a whole: faulty files, the examples, the manual.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use election::{GroupName, Policy};

use crate::load::{check_text, read_agent, read_proxy};
use crate::*;

const AGENT: &str = r#"[node]
name = "db1"
address = "10.0.0.11"
data_dir = "/var/lib/understudy"
[[instance]]
group = "cache"
engine = "redis"
port = 6379
data_dir = "/var/lib/understudy/cache"
"#;

const PROXY: &str = r#"[proxy]
name = "proxy1"
address = "10.0.0.21"
[[listener]]
listen = "0.0.0.0:6380"
groups = ["cache"]
"#;

fn silent(_: &str) -> Option<String> {
    None
}

fn agent(text: &str) -> Loaded<AgentConfig> {
    read_agent("f", text, &silent).unwrap_or_else(|faults| panic!("{faults}")).0
}

fn proxy(text: &str) -> Loaded<ProxyConfig> {
    read_proxy("f", text, &silent).unwrap_or_else(|faults| panic!("{faults}")).0
}

/// What `check` prints of a text.
fn printed(text: &str) -> String {
    check_text("f", text).expect_err("the text has faults").to_string()
}

/// Asserts that the faults begin so, in this order, and that there are no others.
fn assert_faults(text: &str, expected: &[&str]) {
    let printed = printed(text);
    let lines: Vec<&str> = printed.lines().collect();
    let as_expected = lines.len() == expected.len() + 1
        && lines.iter().zip(expected).all(|(line, expected)| {
            // `A … B` stands for anything between.
            let (start, rest) = expected.split_once(" … ").unwrap_or((expected, ""));
            line.starts_with(start) && line[start.len()..].contains(rest)
        });
    assert!(as_expected, "expected:\n{}\n\nprinted:\n{printed}\n\nof:\n{text}", expected.join("\n"));
}

#[test]
fn a_short_agent_file_gets_the_defaults() {
    let loaded = agent(AGENT);
    assert_eq!(loaded.node.name.as_str(), "db1");
    assert_eq!(loaded.http.listen, "10.0.0.11:7400");
    assert_eq!(loaded.consul, ConsulConfig::default());
    let instance = &loaded.instances[0];
    assert_eq!((instance.port, instance.priority, instance.adopt), (6379, 100, false));
    assert_eq!(instance.data_dir, PathBuf::from("/var/lib/understudy/cache"));
    assert_eq!(loaded.groups[&GroupName::from("cache")], Policy::default());
    assert_eq!(loaded.places["instance[0].port"], Place { line: 8, column: 8 });
}

#[test]
fn a_short_proxy_file_gets_the_defaults() {
    let loaded = proxy(PROXY);
    assert_eq!(loaded.http.listen, "127.0.0.1:7401");
    let listener = &loaded.listeners[0];
    assert_eq!((listener.role, listener.protocol), (ListenerRole::Master, Protocol::Tcp));
    assert_eq!((listener.hold, &listener.sharding), (Duration::from_secs(10), &None));
    assert!(loaded.groups.is_empty() && loaded.sentinel.is_none());
}

#[test]
fn every_value_of_an_agent_file_is_read() {
    let text = AGENT.replace("[[instance]]", "zone = \"a\"\n[http]\nlisten = \"0.0.0.0:7444\"\n[[instance]]")
        + r#"priority = 0
adopt = true
bin = "/bin/sh"
[instance.settings]
maxmemory = "256mb"
hz = 50
activerehashing = false
[group.cache]
durability = "async"
fsync = true
detect_after = "500ms"
hang_after = "2m"
flap_pause = "1h"
max_lag = 0
"#;
    let loaded = agent(&text);
    assert_eq!(loaded.node.zone.as_deref(), Some("a"));
    assert_eq!(loaded.http.listen, "0.0.0.0:7444");
    let instance = &loaded.instances[0];
    assert_eq!((instance.priority, instance.adopt, &instance.bin), (0, true, &Some(PathBuf::from("/bin/sh"))));
    let settings: Vec<(&str, &str)> = instance.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(settings, [("activerehashing", "no"), ("hz", "50"), ("maxmemory", "256mb")]);
    let policy = &loaded.groups[&GroupName::from("cache")];
    assert_eq!((policy.detect_after, policy.hang_after, policy.flap_pause), (500, 120_000, 3_600_000));
    assert_eq!((policy.fsync, policy.max_lag), (true, 0));
}

#[test]
fn every_fault_is_told_at_once_in_the_order_of_lines() {
    assert_faults(
        r#"[node]
name = "db 1"
adress = "10.0.0.11"
data_dir = "var/lib"
[[instance]]
group = "Cache"
engine = "redys"
port = 70000
[group.cache]
detect_after = "100ms"
max_lag = "1mb"
colour = 1
"#,
        &[
            "f:1:1: node.address: is missing; write `address = \"10.0.0.11\"`",
            "f:2:8: node.name: \"db 1\" is not a node's name; write …  0-9, _, . and -",
            "f:3:1: node.adress: there is no such key; did you mean `address`?",
            "f:4:12: node.data_dir: \"var/lib\" is not a whole path; write",
            "f:5:1: instance[0].data_dir: is missing; write `data_dir = ",
            "f:6:9: instance[0].group: \"Cache\" is not a group's name; write",
            "f:7:10: instance[0].engine: \"redys\" is none of \"redis\", \"postgres\", \"mariadb\"; did you mean \"redis\"?",
            "f:8:8: instance[0].port: 70000 is not a port; write a whole number from 1 to 65535, without quotes",
            "f:9:8: group.cache: no [[instance]] here is of this group; add one",
            "f:10:16: group.cache.detect_after: \"100ms\" is not between 200ms and 1m: … ; write one that is",
            "f:11:11: group.cache.max_lag: is a text; write a whole number from 0 to 1099511627776, without quotes",
            "f:12:1: group.cache.colour: there is no such key; [group.NAME] knows: durability, without_replica, fsync",
        ],
    );
    assert!(printed(AGENT.replace("redis", "redys").as_str()).ends_with("\n1 fault"));
}

#[test]
fn values_of_a_wrong_kind_are_told() {
    for (from, to, expected) in [
        ("port = 6379", "port = \"6379\"", "f:8:8: instance[0].port: is a text; write a whole number … without quotes"),
        ("port = 6379", "port = 6379.0", "f:8:8: instance[0].port: is a number with a fraction; write"),
        ("port = 6379", "port = 0", "f:8:8: instance[0].port: 0 is not a port; write"),
        ("port = 6379", "port = -1", "f:8:8: instance[0].port: -1 is not a port; write"),
        ("port = 6379", "port = 99999999999999999999", "f:8:8: instance[0].port: 99999999999999999999 is not a port"),
        ("name = \"db1\"", "name = 7", "f:2:8: node.name: is a whole number; write a text in quotes"),
        ("port = 6379", "port = 6379\nadopt = \"yes\"", "f:9:9: instance[0].adopt: is a text; write true or false"),
        ("port = 6379", "port = 6379\nsettings = 1", "f:9:12: instance[0].settings: is a whole number; write a table"),
        ("[[instance]]", "[instance]", "f:5:1: instance: is a table; write `[[instance]]`, with two brackets"),
        ("[node]", "group = 1\n[node]", "f:1:9: group: is a whole number; write a table"),
        ("[node]", "consul.addresses = []\n[node]", "f:1:20: consul.addresses: is an empty list; name at least one"),
        ("[node]", "consul.addresses = \"a\"\n[node]", "f:1:20: consul.addresses: is a text; write a list of texts"),
        ("[node]", "consul.addresses = [\"http://a:1\", 2]\n[node]", "f:1:35: consul.addresses[1]: is a whole number"),
    ] {
        assert_faults(&AGENT.replace(from, to), &[expected]);
    }
}

#[test]
fn what_an_agent_cannot_be_is_told() {
    for (from, to, expected) in [
        ("address = \"10.0.0.11\"", "address = \"0.0.0.0\"", "f:3:11: node.address: \"0.0.0.0\" means every address"),
        ("\"cache\"", "\"status\"", "f:6:9: instance[0].group: \"status\" is a path of the agent's own HTTP; choose"),
        (
            "understudy/cache",
            "understudy",
            "f:9:12: instance[0].data_dir: holds the agent's own memory, `node.data_dir`",
        ),
        ("understudy/cache", "understudy/./", "f:9:12: instance[0].data_dir: holds the agent's own memory"),
        ("understudy/cache\"", "", "f:9:22: this is not TOML: invalid basic string"),
        ("port = 6379", "port = 7400", "f:8:8: instance[0].port: port 7400 is taken by the agent's own HTTP; choose"),
        ("[[inst", "[http]\nlisten = \"127.0.0.1:7400\"\n[[inst", "f:6:10: http.listen: peers connect to node.address"),
        ("[[inst", "[http]\nlisten = \":7400\"\n[[inst", "f:6:10: http.listen: \":7400\" has no host; write host:port"),
        (
            "[[inst",
            "[http]\nlisten = \"0.0.0.0:6379\"\n[[inst",
            "f:10:8: instance[0].port: port 6379 is taken by line 6",
        ),
        ("port", "bin = \"/nowhere/redis\"\nport", "f:8:7: instance[0].bin: /nowhere/redis cannot be found"),
        (
            "port",
            "password = \"hunter2\"\nport",
            "f:8:1: instance[0].password: there is no such key; did you mean `password_f",
        ),
        (
            "port",
            "priority = 1001\nport",
            "f:8:12: instance[0].priority: 1001 is not a priority; write a whole number from 0 to 1000",
        ),
    ] {
        assert_faults(&AGENT.replacen(from, to, 1), &[expected]);
    }
    assert!(!printed(&AGENT.replace("port", "password = \"hunter2\"\nport")).contains("hunter2"));
}

#[test]
fn instances_may_not_share_anything() {
    let second = AGENT.split_once("[[instance]]").unwrap().1;
    assert_faults(
        &format!("{AGENT}[[instance]]{second}"),
        &[
            "f:11:9: instance[1].group: \"cache\" stands in line 6 too; a node takes part in a group once",
            "f:13:8: instance[1].port: port 6379 is taken by line 8; choose another",
            "f:14:12: instance[1].data_dir: shares its files with the data_dir of line 9; choose",
        ],
    );
}

#[test]
fn settings_that_are_not_the_users_are_told() {
    assert_faults(
        &format!(
            "{AGENT}[instance.settings]\nReplicaOf = \"x 1\"\nreplicaof = \"x 1\"\nappendfsync = \"no\"\ndatabases = 1001\nmaxclients = 10\nhz = 1.5\nmaxmemory = \"1\\nport 1\"\n\"a b\" = 1\n"
        ),
        &[
            "f:11:13: instance[0].settings.ReplicaOf: is not yours to set: the agent decides who follows whom; leave it out",
            "f:12:13: instance[0].settings.replicaof: is not yours to set",
            "f:12:13: instance[0].settings.replicaof: \"replicaof\" stands in line 11 too",
            "f:13:15: instance[0].settings.appendfsync: \"no\" leaves the disk to chance",
            "f:14:13: instance[0].settings.databases: \"1001\" is no number of databases; write a whole number from 1 to 1000",
            "f:16:6: instance[0].settings.hz: is a number with a fraction; write a text in quotes",
            "f:17:13: instance[0].settings.maxmemory: holds a line's end",
            "f:18:9: instance[0].settings.\"a b\": is not a setting's name",
        ],
    );
    // Another engine's settings are not Redis's.
    agent(&format!("{}[instance.settings]\nmaxmemory = 1\n", AGENT.replace("\"redis\"", "\"postgres\"")));
}

#[test]
fn policies_that_contradict_themselves_are_told() {
    let group = "[group.cache]\ndurability = \"async\"\nwithout_replica = \"block\"\nreads = \"durable\"\n";
    assert_faults(
        &format!("{AGENT}{group}hang_after = \"1\"\nflap_pause = 10\n"),
        &[
            "f:12:19: group.cache.without_replica: \"block\" can be promised only where",
            "f:13:9: group.cache.reads: \"durable\" can be promised only where",
            "f:14:14: group.cache.hang_after: \"1\" is not a duration; write a whole number and ms, s, m or h",
            "f:15:14: group.cache.flap_pause: is a whole number; write a number and its unit in quotes, as in `flap_pause = \"10s\"`",
        ],
    );
    assert_faults(
        &format!("{AGENT}[group.cahce]\n"),
        &["f:10:8: group.cahce: no [[instance]] … did you mean \"cache\"?"],
    );
}

#[test]
fn what_a_proxy_cannot_be_is_told() {
    for (from, to, expected) in [
        (
            "[\"cache\"]",
            "[\"a\", \"b\"]",
            &["f:6:16: listener[0].groups[1]: several groups are sharded, which only"][..],
        ),
        (
            "[\"cache\"]",
            "[\"a\", \"a\"]\nprotocol = \"redis\"",
            &["f:6:16: listener[0].groups[1]: \"a\" stands in line 6 too"],
        ),
        ("[\"cache\"]", "\"cache\"", &["f:6:10: listener[0].groups: is a text; write a list of texts"]),
        ("[\"cache\"]", "[]", &["f:6:10: listener[0].groups: is an empty list; name at least one"]),
        (
            "[\"cache\"]",
            "[\"a\"]\nhold = \"0s\"\nrole = \"slave\"\n[listener.sharding]\nhash = \"sha1\"\nhash_tag = \"{\"",
            &[
                "f:7:8: listener[0].hold: \"0s\" is not between 100ms and 5m",
                "f:8:8: listener[0].role: \"slave\" is none of the words that stand here; write one of \"master\", \"replica\"",
                "f:9:1: listener[0].sharding: one group has nothing to be sharded over",
                "f:10:8: listener[0].sharding.hash: \"sha1\" is none",
                "f:11:12: listener[0].sharding.hash_tag: \"{\" is no hash tag",
            ],
        ),
        (
            "[\"cache\"]",
            "[\"cache\"]\n[[listener]]\nlisten = \"127.0.0.1:6380\"\ngroups = [\"cache\"]\n[sentinel]\nlisten = \"0.0.0.0:7401\"",
            &[
                "f:8:10: listener[1].listen: port 6380 is taken by line 5; choose another",
                "f:11:10: sentinel.listen: port 7401 is taken by the proxy's own HTTP",
            ],
        ),
        (
            "[\"cache\"]",
            "[\"cache\"]\n[group.cach]\nuser = \"a b\"\n[sentinel]\nannounce = \"me\"",
            &[
                "f:7:8: group.cach: no [[listener]] here is for this group; did you mean \"cache\"?",
                "f:8:8: group.cach.user: \"a b\" is not an account's name",
                "f:9:1: sentinel.listen: is missing; write",
                "f:10:12: sentinel.announce: \"me\" is none",
            ],
        ),
    ] {
        assert_faults(&PROXY.replace(from, to), expected);
    }
}

#[test]
fn consul_faults_are_told() {
    let consul = "[consul]\naddresses = [\"127.0.0.1:8500\", \"http://a:1\", \"http://a:1\"]\nprefix = \"/\"\ntoken = \"s3cr3t\"\n\
                  token_file = \"/nowhere/token\"\ncert_file = \"/bin/sh\"\n";
    assert_faults(
        &format!("{AGENT}{consul}"),
        &[
            "f:10:1: consul.key_file: is missing; write `key_file = \"…\"` beside `cert_file`",
            "f:11:14: consul.addresses[0]: \"127.0.0.1:8500\" has no scheme; write http:// or https:// before it",
            "f:12:10: consul.prefix: \"/\" is no folder in Consul",
            "f:13:1: consul.token: there is no such key; did you mean `token_file`?",
            "f:14:14: consul.token_file: /nowhere/token cannot be read … No such file",
        ],
    );
    assert_faults(
        &format!("{AGENT}[consul]\naddresses = [\"http://a:1\", \"http://a:1\"]\n"),
        &["f:11:28: consul.addresses[1]: \"http://a:1\" stands in line 11 too; name each address once"],
    );
    assert_faults(
        &format!("{AGENT}[consul]\naddresses = [\"http://a:1\"]\nca_file = \"/bin/sh\"\n"),
        &["f:12:11: consul.ca_file: is for https, but every address begins with http://"],
    );
}

#[test]
fn a_password_file_is_looked_at() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "hunter2\n").unwrap();
    let text = format!("{AGENT}password_file = \"{}\"\n", file.path().display());
    assert_eq!(agent(&text).instances[0].password_file.as_deref(), Some(file.path()));
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let shown = file.path().display();
    assert_faults(&text, &[&format!("f:10:17: instance[0].password_file: {shown} has mode 0644, open to every user")]);
    fs::remove_file(file.path()).unwrap();
    assert_faults(&text, &[&format!("f:10:17: instance[0].password_file: {shown} cannot be read; … No such file")]);
    drop(file);
}

#[test]
fn what_is_no_toml_is_told_with_the_rest_that_is_certain() {
    assert_faults(
        &AGENT.replace("name = \"db1\"", "name = db1").replace("6379", "0").replace("[node]", "[node]\nzome = 1"),
        &[
            "f:2:1: node.zome: there is no such key; did you mean `zone`?",
            "f:3:8: this is not TOML: string values must be quoted",
            "f:9:8: instance[0].port: 0 is not a port",
        ],
    );
    // With a broken header nobody knows whose the keys below it are.
    assert_faults(&AGENT.replace("[[instance]]", "[[instance]").replace("6379", "0"), &["f:5:12: this is not TOML: "]);
    assert_faults(&AGENT.replace("port", "port = 1\nport"), &["f:9:1: port: is written twice; keep one of the two"]);
    assert_faults("= 1\n", &["f:1:1: this is not TOML: "]);
}

#[test]
fn a_file_of_nobody_or_of_both_is_told_in_one_sentence() {
    assert_faults("# nothing\n", &["f: has neither [node] and [[instance]]"]);
    assert_faults("[consul]\n", &["f: has neither [node] and [[instance]]"]);
    assert_faults(
        &format!("{AGENT}{PROXY}"),
        &["f: has tables of an agent's file ([node], [[instance]]) and of a proxy's"],
    );
    assert_faults(
        "[node]\nname = \"a\"\naddress = \"b\"\ndata_dir = \"/c\"\n",
        &["f: instance: is missing; write `[[instance]]`"],
    );
    assert_faults("[proxy]\n", &["f: listener: is", "f:1:1: proxy.address: is", "f:1:1: proxy.name: is"]);
}

/// Whatever stands in a file, the answer is a value or faults that each point into the text.
#[test]
fn no_text_is_too_strange_to_be_read() {
    let groups = "[instance.settings]\nhz = 10\n[group.cache]\nhold = \"1s\"\n[consul]\naddresses = [\"http://a:1\"]\n";
    for whole in [format!("{AGENT}{groups}"), format!("{PROXY}[listener.sharding]\n{groups}")] {
        let lines = whole.lines().count();
        for at in 0..whole.len() {
            for put in ["", "\"", "'", "[", "]", "{", "=", "\n", ".", ",", "#", "\u{e9}", "\u{0}", "\r"] {
                let text = format!("{}{put}{}", &whole[..at], &whole[at + 1..]);
                let Err(faults) = check_text("f", &text) else { continue };
                assert!(!faults.is_empty(), "{text}");
                let inside = |place: Place| (1..=lines + 1).contains(&place.line) && place.column >= 1;
                assert!(faults.iter().all(|fault| fault.place.is_none_or(inside)), "{faults}\n{text}");
                assert_eq!(faults.to_string().lines().count(), faults.len() + 1, "{faults}");
            }
        }
    }
}

#[test]
fn lines_and_columns_are_those_that_an_editor_shows() {
    assert_faults("\u{feff}\"é\" = \"é\" ; \r\n[node]\r\n", &["f:1:11: this is not TOML"]);
}

#[test]
fn files_are_opened_and_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("agent.toml"), AGENT).unwrap();
    fs::write(path("proxy.toml"), PROXY).unwrap();
    fs::write(path("empty.toml"), "").unwrap();
    assert_eq!(check(path("agent.toml")).unwrap(), Kind::Agent);
    assert_eq!(check(path("proxy.toml")).unwrap(), Kind::Proxy);
    for (result, why) in [
        (load_agent(path("proxy.toml")).map(drop), "is a proxy's file; start it with `understudy proxy --config`"),
        (load_proxy(path("agent.toml")).map(drop), "is an agent's file; start it with `understudy agent --config`"),
        (check(path("empty.toml")).map(drop), "is empty"),
        (check(path("missing.toml")).map(drop), "there is no such file"),
        (check(folder.path()).map(drop), "it is a folder"),
    ] {
        let faults = result.unwrap_err();
        assert!(faults.len() == 1 && faults.to_string().contains(why), "{faults}");
    }
}

#[test]
fn the_environment_speaks_where_the_file_is_silent() {
    let environment = |name: &str| (name == "CONSUL_HTTP_ADDR").then(|| "consul:8500".to_owned());
    let addresses = |text: &str| read_agent("f", text, &environment).unwrap().0.value.consul.addresses;
    assert_eq!(addresses(AGENT), ["http://consul:8500"]);
    assert_eq!(addresses(&format!("{AGENT}[consul]\naddresses = [\"http://a:1\"]\n")), ["http://a:1"]);
    let faulty = |name: &str| (name == "CONSUL_HTTP_ADDR").then(|| "unix:///x".to_owned());
    let faults = read_agent("f", &AGENT.replace("6379", "0"), &faulty).unwrap_err().to_string();
    assert!(faults.starts_with("CONSUL_HTTP_ADDR: \"unix:///x\" is not understood"), "{faults}");
    assert!(faults.ends_with("2 faults"), "{faults}");
}

#[test]
fn what_is_not_built_is_named_with_its_line() {
    let built = |faults: Faults, keys: &[&str]| {
        let named: Vec<String> =
            faults.iter().map(|fault| format!("{} {}", fault.place.map_or(0, |place| place.line), fault.key)).collect();
        assert_eq!(named, keys, "{faults}");
    };
    built(proxy(PROXY).not_built_yet(), &[]);
    let postgres = PROXY.replace("[\"cache\"]", "[\"cache\"]\nprotocol = \"postgres\"");
    built(proxy(&postgres).not_built_yet(), &[]);
    let text = PROXY.replace("[\"cache\"]", "[\"a\", \"b\"]\nprotocol = \"redis\"")
        + "[group.a]\n[sentinel]\nlisten = \"0.0.0.0:26379\"\n";
    let keys = ["6 listener[0].groups", "9 sentinel"];
    built(proxy(&text).not_built_yet(), &keys);
    assert!(
        proxy(&text).not_built_yet().to_string().starts_with("f:6:10: listener[0].groups: this version of understudy")
    );
}

// The examples and the manual.

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_examples_are_faultless_and_start() {
    let mut seen = 0;
    for entry in fs::read_dir(project("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let kind = check(&path).unwrap_or_else(|faults| panic!("{faults}"));
        let content = fs::read_to_string(&path).unwrap();
        let missing = match kind {
            Kind::Agent => Faults::new(Vec::new()),
            Kind::Proxy => proxy(&content).not_built_yet(),
        };
        // The example that is not served yet says so, and no other does.
        assert_eq!(missing.is_empty(), !content.contains("This version does not serve"), "{name}: {missing}");
        assert!(name.starts_with(&kind.to_string()), "{name} is the file of the {kind}");
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} examples");
}

/// The output that the manual shows is what `check` prints.
#[test]
fn the_manual_shows_real_faults() {
    let manual = text("docs/configuration.md");
    let shown = manual.split("$ understudy check agent.toml\n").nth(1).unwrap().split("```").next().unwrap();
    let faulty = text("examples/agent-minimal.toml").replace("port = 6379", "prioritty = 50\nport = 70000");
    assert_eq!(check_text("agent.toml", &faulty).unwrap_err().to_string(), shown.trim_end());
}

/// Every key that the readers ask for, such as `agent group.NAME.fsync`. Tables are not keys.
fn keys_read() -> BTreeSet<String> {
    // A getter below a table is reached only when the table is there.
    let whole_agent = format!("{AGENT}[instance.settings]\n[group.cache]\n");
    let whole_proxy = PROXY.replace("[\"cache\"]", "[\"cache\", \"b\"]\nprotocol = \"redis\"\n[listener.sharding]")
        + "[group.cache]\n[sentinel]\nlisten = \"0.0.0.0:1\"\n";
    let agent = read_agent("f", &whole_agent, &silent).unwrap().1;
    let proxy = read_proxy("f", &whole_proxy, &silent).unwrap().1;
    let leaves = |kind: &'static str, asked: BTreeSet<String>| {
        let is_table = |key: &String| asked.iter().any(|other| other.starts_with(&format!("{key}.")));
        asked.iter().filter(|key| !is_table(key)).map(|key| format!("{kind} {key}")).collect::<Vec<_>>()
    };
    leaves("agent", agent).into_iter().chain(leaves("proxy", proxy)).collect()
}

/// Every key that the manual has a row for, under a heading that names the table.
fn keys_documented() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let (mut kinds, mut table) = (Vec::new(), String::new());
    for line in text("docs/configuration.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            kinds = ["agent", "proxy"].into_iter().filter(|kind| title.contains(&format!("{kind}.toml"))).collect();
            table.clear();
        } else if let Some(title) = line.strip_prefix("### ") {
            let name = title.split('`').nth(1).unwrap_or_default();
            table = name.trim_matches(['[', ']']).to_owned();
        } else if let Some(key) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next())
            && !table.is_empty()
        {
            keys.extend(kinds.iter().map(|kind| format!("{kind} {table}.{key}")));
        }
    }
    keys
}

#[test]
fn the_manual_has_every_key_and_no_other() {
    let (read, documented) = (keys_read(), keys_documented());
    assert!(read.len() > 40, "{read:?}");
    assert_eq!(read.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "read, but not documented");
    assert_eq!(documented.difference(&read).collect::<Vec<_>>(), Vec::<&String>::new(), "documented, but not read");
}

#[test]
fn the_examples_show_every_key() {
    for (kind, files) in [("agent", &["agent.toml"][..]), ("proxy", &["proxy.toml", "proxy-redis.toml"])] {
        let shown: String = files.iter().map(|file| text(&format!("examples/{file}"))).collect();
        let shows = |key: &str| {
            let start = format!("{key} = ");
            shown.lines().any(|line| line.trim_start_matches("# ").starts_with(&start))
        };
        // How to reach Consul is the same in both files, and shown in the agent's.
        let own = |key: &str| kind == "agent" || !key.contains(" consul.");
        for key in keys_read().into_iter().filter(|key| key.starts_with(kind) && own(key)) {
            let last = key.rsplit('.').next().unwrap();
            assert!(last == "NAME" || shows(last), "no example shows `{key}`");
        }
    }
}

#[test]
fn the_manual_names_every_setting_that_is_refused() {
    let manual = text("docs/configuration.md");
    let (_, rest) = manual.split_once("<!-- managed settings -->").unwrap();
    let (list, _) = rest.split_once("<!-- end -->").unwrap();
    let named: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
    let managed: BTreeSet<&str> = REDIS_MANAGED.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, managed);
    for (page, managed) in [("docs/postgres.md", POSTGRES_MANAGED), ("docs/mariadb.md", MARIADB_MANAGED)] {
        let rows = managed.iter().map(|(name, reason)| format!("| `{name}` | {reason} |"));
        let manual = text(page);
        let missing: Vec<String> = rows.filter(|row| !manual.lines().any(|line| line == row)).collect();
        assert_eq!(missing, Vec::<String>::new(), "not in {page}");
    }
    let reserved: Vec<&str> =
        RESERVED_GROUPS.into_iter().filter(|name| !manual.contains(&format!("`{name}`"))).collect();
    assert_eq!(reserved, Vec::<&str>::new(), "reserved, but not in the manual");
}
