//! What the agent keeps in the data set itself: a schema of its own in the database `postgres`, with the marker, and the
//! password that the copies behind a copy replicate with.

use election::{Marker, Secret};

use super::config::{CHAIN, HOT};
use super::link::literal;

/// What every password of the chain begins with, so that who is given one knows which role it is for.
const CHAIN_PREFIX: &str = "chain-";

/// Whether there is a marker to read.
pub(super) const IS_THERE: &str = "to_regclass('understudy.marker') IS NOT NULL";

/// The marker as JSON, in the form of [`Marker`].
pub(super) const READ: &str = "SELECT row_to_json(m)::text FROM understudy.marker m";

/// The chain's password.
pub(super) const READ_CHAIN: &str = "SELECT secret FROM understudy.chain";

/// Makes the schema and the roles where they are not there yet; all or nothing. Whoever replicates may read what it takes
/// to find out how two histories part, and to rewind: the functions that `pg_rewind` asks for.
pub(super) fn create() -> String {
    let secret = format!("{CHAIN_PREFIX}{}", crate::engine::folder::draw().reveal());
    let mut sql = String::from(
        "CREATE SCHEMA IF NOT EXISTS understudy;
         REVOKE ALL ON SCHEMA understudy FROM PUBLIC;
         CREATE TABLE IF NOT EXISTS understudy.marker
             (uid text NOT NULL, epoch bigint NOT NULL, nonce text NOT NULL, counter bigint NOT NULL);
         CREATE TABLE IF NOT EXISTS understudy.chain (secret text NOT NULL);\n",
    );
    for role in [HOT, CHAIN] {
        sql.push_str(&format!(
            "DO $$ BEGIN IF to_regrole('{role}') IS NULL THEN CREATE ROLE {role}; END IF; END $$;
             ALTER ROLE {role} LOGIN REPLICATION NOSUPERUSER PASSWORD NULL;
             GRANT pg_monitor TO {role};
             DO $$ BEGIN IF to_regrole('pg_checkpoint') IS NOT NULL THEN GRANT pg_checkpoint TO {role}; END IF; END $$;
             GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean),
                 pg_catalog.pg_stat_file(text, boolean), pg_catalog.pg_read_binary_file(text),
                 pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO {role};\n"
        ));
    }
    let secret = literal(&secret);
    sql.push_str(&format!(
        "DELETE FROM understudy.chain; INSERT INTO understudy.chain VALUES ({secret});
         SET LOCAL password_encryption = 'scram-sha-256'; ALTER ROLE {CHAIN} PASSWORD {secret};"
    ));
    sql
}

/// Writes the marker.
pub(super) fn write(marker: &Marker) -> String {
    let Marker { uid, epoch, nonce, counter } = marker;
    format!(
        "DELETE FROM understudy.marker; INSERT INTO understudy.marker VALUES ({}, {epoch}, {}, {counter});",
        literal(uid),
        literal(nonce.as_str())
    )
}

/// Sets a role's password.
pub(super) fn set_password(role: &str, secret: &Secret) -> String {
    format!("SET password_encryption = 'scram-sha-256'; ALTER ROLE {role} PASSWORD {};", literal(secret.reveal()))
}

/// Which role a password is for.
pub(super) fn role_of(secret: &Secret) -> &'static str {
    if secret.reveal().starts_with(CHAIN_PREFIX) { CHAIN } else { HOT }
}
