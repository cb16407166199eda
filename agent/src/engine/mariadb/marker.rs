//! What the agent keeps in the data set itself: one row, in a schema of its own. It is written like any transaction of a
//! client, so that it is replicated, and waits for the hot replica's acknowledgement.

use election::{Marker, Nonce};

use super::sql::{Answer, Link, is_missing, literal};

/// The agent's schema.
pub(super) const SCHEMA: &str = "understudy";

const CREATE: [&str; 2] = [
    "CREATE DATABASE IF NOT EXISTS understudy CHARACTER SET utf8mb4",
    "CREATE TABLE IF NOT EXISTS understudy.marker (id TINYINT NOT NULL PRIMARY KEY, uid VARCHAR(255) NOT NULL, \
     epoch BIGINT UNSIGNED NOT NULL, nonce VARCHAR(255) NOT NULL, counter BIGINT UNSIGNED NOT NULL) ENGINE = InnoDB",
];

/// Reads it. A data set without one has none.
pub(super) async fn read(link: &mut Link) -> Result<Option<Marker>, sqlx::Error> {
    match link.ask_one("SELECT uid, epoch, nonce, counter FROM understudy.marker WHERE id = 1").await {
        Ok(row) => Ok(from(&row)),
        Err(e) if is_missing(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes it, and gives the id of the transaction that did: what the binary log says of it, so that it is exact.
pub(super) async fn write(link: &mut Link, marker: &Marker) -> Result<String, sqlx::Error> {
    link.run("SET SESSION sql_log_bin = 1").await?;
    if let Err(e) = link.run(statement(marker)).await {
        if !is_missing(&e) {
            return Err(e);
        }
        for create in CREATE {
            link.run(create).await?;
        }
        link.run(statement(marker)).await?;
    }
    let row = link.ask_one("SELECT @@last_gtid AS gtid").await?;
    Ok(row.get("gtid").cloned().unwrap_or_default())
}

fn statement(marker: &Marker) -> String {
    format!(
        "REPLACE INTO understudy.marker (id, uid, epoch, nonce, counter) VALUES (1, {}, {}, {}, {})",
        literal(&marker.uid),
        marker.epoch,
        literal(marker.nonce.as_str()),
        marker.counter
    )
}

fn from(row: &Answer) -> Option<Marker> {
    Some(Marker {
        uid: row.get("uid")?.clone(),
        epoch: row.get("epoch")?.parse().ok()?,
        nonce: Nonce(row.get("nonce")?.clone()),
        counter: row.get("counter")?.parse().ok()?,
    })
}
