//! Whether a copy is what its certificate says: the one place that decides what "complete" means.

use crate::documents::{Record, Replica};
use crate::ids::{Incarnation, Lineage, Position};
use crate::status::Status;

/// Why a certificate does not hold for an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Another process: what the certified one held in memory is gone.
    #[error("its database was restarted since it was certified (it was {certified}, it is {running})")]
    Restarted {
        /// The certified run.
        certified: Incarnation,
        /// The one that runs.
        running: Incarnation,
    },
    /// The data set is being read or replaced.
    #[error("its data set is being loaded or replaced")]
    NotWhole,
    /// It follows another history.
    #[error("it belongs to another history (certified {certified}, it has {has})")]
    OtherLineage {
        /// The certified one.
        certified: Lineage,
        /// Its own.
        has: Lineage,
    },
    /// It stands before the certificate: what it had has been replaced.
    #[error("it stands at {has}, before its certificate's {certified}")]
    Behind {
        /// The certificate's.
        certified: Position,
        /// Its own.
        has: Position,
    },
    /// The marker in its data is not the certificate's.
    #[error("the marker in its data is not the one it was certified with")]
    OtherMarker,
}

/// Checks an instance's answer against its certificate.
///
/// A missing marker is no flaw: the run is the certified one, so run, lineage and position are proof, and a user's
/// FLUSHALL removes the marker; a marker of another certificate or group is.
pub fn check(record: &Record, replica: &Replica, status: &Status) -> Result<(), Flaw> {
    let certificate = &replica.certificate;
    if status.incarnation != certificate.incarnation {
        return Err(Flaw::Restarted {
            certified: certificate.incarnation.clone(),
            running: status.incarnation.clone(),
        });
    }
    if !status.is_whole() {
        return Err(Flaw::NotWhole);
    }
    if status.lineage != certificate.lineage {
        return Err(Flaw::OtherLineage { certified: certificate.lineage.clone(), has: status.lineage.clone() });
    }
    if status.position < certificate.position {
        return Err(Flaw::Behind { certified: certificate.position, has: status.position });
    }
    match &status.marker {
        Some(marker) if marker.uid != record.uid || marker.nonce != certificate.nonce => Err(Flaw::OtherMarker),
        _ => Ok(()),
    }
}
