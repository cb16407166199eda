//! What the agent keeps in the data set itself, in a database of its own: the marker, and whether an acknowledgement
//! needs the hot replica.

use std::collections::HashMap;

use election::{Marker, Nonce};
use redis::Cmd;

/// The marker, a hash.
pub(super) const KEY: &str = "understudy:marker";

/// Whether an acknowledgement needs the hot replica. Proxies read it from here: the name is part of the contract.
pub(super) const NEED: &str = "understudy:need";

/// The one text that says that it does not.
pub(super) const NOT_NEEDED: &str = "0";

/// The text that says that it does.
pub(super) const NEEDED: &str = "1";

// Scripts, because only a script may say `allow-oom`: a master that is full must still be able to certify a replica.
const WRITE: &str = "#!lua flags=allow-oom\nreturn redis.call('HSET', KEYS[1], unpack(ARGV))";
const SAY_NEED: &str = "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], ARGV[1])";

/// The command that writes the marker.
pub(super) fn write(marker: &Marker) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(WRITE).arg(1).arg(KEY);
    for (name, value) in fields(marker) {
        command.arg(name).arg(value);
    }
    command
}

/// The command that says whether an acknowledgement needs the hot replica.
pub(super) fn say_need(need: bool) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(SAY_NEED).arg(1).arg(NEED).arg(if need { NEEDED } else { NOT_NEEDED });
    command
}

/// The marker as the fields of its hash.
pub(super) fn fields(marker: &Marker) -> [(&'static str, String); 4] {
    [
        ("uid", marker.uid.clone()),
        ("epoch", marker.epoch.to_string()),
        ("nonce", marker.nonce.to_string()),
        ("counter", marker.counter.to_string()),
    ]
}

/// The marker from the fields of its hash. A marker that lacks one is none.
pub(super) fn read(fields: &HashMap<String, String>) -> Option<Marker> {
    Some(Marker {
        uid: fields.get("uid")?.clone(),
        epoch: fields.get("epoch")?.parse().ok()?,
        nonce: Nonce(fields.get("nonce")?.clone()),
        counter: fields.get("counter")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        let marker = Marker { uid: "u".into(), epoch: 3, nonce: Nonce::from("n"), counter: 9 };
        let mut hash: HashMap<String, String> = fields(&marker).into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        assert_eq!(read(&hash), Some(marker));
        hash.remove("counter");
        assert_eq!(read(&hash), None);
    }
}
