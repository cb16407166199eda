//! Who may replicate from this instance: the exclusive channel of the master, the shared one of the hot replica.

use crate::documents::{Phase, Role};
use crate::ids::NodeId;
use crate::snapshot::{Offer, Purpose, Snapshot};

/// The leave to replicate that the beat to `to` carries, if any.
///
/// A master gives its password to one node at a time: its hot replica, under the certificate's own password, or the
/// candidate. A hot replica gives its own to every spare. Nobody gives leave by a record that is not the newest it knows:
/// under an older one a master may have been hot replica, and its exclusive password would go to a spare.
pub fn offer(s: &Snapshot, to: &NodeId) -> Option<Offer> {
    let (record, status) = (s.record()?, s.status()?);
    let (channel, secret) = (status.channel.clone()?, s.channel.clone()?);
    let newest = record.stamp() == s.memory.stamp;
    if !newest || !matches!(record.phase, Phase::Active | Phase::Switching) {
        return None;
    }
    let purpose = match record.role_of(&s.me.id) {
        Role::Spare => return None,
        Role::Replica if record.is_master(to) || status.is_master() => return None,
        Role::Replica => Purpose::Chain,
        Role::Master => match (&record.replica, &s.certifying) {
            (Some(replica), _) if replica.id == *to && replica.certificate.nonce == channel => Purpose::Certify,
            (None, Some(c)) if c.candidate == *to && c.nonce == channel => Purpose::Certify,
            (None, Some(c)) if c.candidate == *to => Purpose::Join,
            _ => return None,
        },
    };
    Some(Offer { stamp: record.stamp(), source: s.me.database.clone(), channel, secret, purpose })
}
