//! Reads what both files have: paths to other files, `[http]`, `[consul]`.

use std::path::PathBuf;

use election::Address;

use crate::HttpConfig;
use crate::consul::{self, ConsulConfig, Environment, Given};
use crate::files;
use crate::names;
use crate::reader::{Found, Section};

/// A file that holds a password or token: readable, one line, closed to others.
pub(crate) fn secret_file(section: &mut Section<'_>, key: &'static str) -> Option<Found<PathBuf>> {
    let found = section.parsed(key, names::parse_path)?;
    if let Err(error) = files::check_secret(&found.value) {
        section.reader().fault(&found.key, found.place, files::told(&error));
        return None;
    }
    Some(found)
}

fn readable_file(section: &mut Section<'_>, key: &'static str) -> Option<Found<PathBuf>> {
    let found = section.parsed(key, names::parse_path)?;
    if let Err(message) = files::check_readable(&found.value) {
        section.reader().fault(&found.key, found.place, message);
        return None;
    }
    Some(found)
}

/// Reads `[http]`. Without `listen` it is `default`.
pub(crate) fn http(root: &mut Section<'_>, default: String) -> (HttpConfig, Option<Found<Address>>) {
    let mut section = root.table_or_empty("http");
    let listen = section.parsed("listen", names::parse_listen);
    section.finish();
    let text = match &listen {
        Some(found) => names::listen_text(&found.value.host, found.value.port),
        None => default,
    };
    (HttpConfig { listen: text }, listen)
}

/// Reads `[consul]`, and lets the environment say what it does not.
pub(crate) fn consul(root: &mut Section<'_>, environment: Environment<'_>) -> ConsulConfig {
    let mut section = root.table_or_empty("consul");
    let addresses = section.list("addresses", consul::parse_file_address);
    if let Some(addresses) = &addresses {
        let mut once = crate::claims::Once::new(section.reader());
        for address in addresses {
            once.claim(address, &address.value, "name each address once");
        }
    }
    let plain = addresses.as_ref().is_some_and(|list| list.iter().all(|found| found.value.starts_with("http://")));
    let given = Given {
        addresses: addresses.map(|list| list.into_iter().map(|found| found.value).collect()),
        prefix: section.parsed("prefix", consul::parse_prefix).map(|found| found.value),
        token_file: secret_file(&mut section, "token_file").map(|found| found.value),
        ca_file: ca_file(&mut section, plain).map(|found| found.value),
        cert_file: readable_file(&mut section, "cert_file").map(|found| found.value),
        key_file: secret_key(&mut section).map(|found| found.value),
        datacenter: section.parsed("datacenter", names::parse_word).map(|found| found.value),
    };
    let pair = [("cert_file", "key_file"), ("key_file", "cert_file")];
    for (there, wanted) in pair.into_iter().filter(|(there, _)| section.has(there)) {
        section.need(wanted, &format!("{wanted} = \"…\"` beside `{there}"));
    }
    let reader = section.reader();
    section.finish();
    consul::overlay(given, environment).unwrap_or_else(|faults| {
        reader.take(faults);
        ConsulConfig::default()
    })
}

/// Who names authorities wants TLS; with `http://` alone everything, the token too, would go in the clear.
fn ca_file(section: &mut Section<'_>, plain: bool) -> Option<Found<PathBuf>> {
    let found = readable_file(section, "ca_file")?;
    if plain {
        let message = "is for https, but every address begins with http://; write https:// there, or leave this out";
        section.reader().fault(&found.key, found.place, message);
    }
    Some(found)
}

/// A key has many lines, so it is no [`secret_file`]; but nobody else may read it either.
fn secret_key(section: &mut Section<'_>) -> Option<Found<PathBuf>> {
    let found = readable_file(section, "key_file")?;
    if let Err(error) = files::check_closed(&found.value) {
        section.reader().fault(&found.key, found.place, files::told(&error));
        return None;
    }
    Some(found)
}
