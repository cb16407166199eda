//! An append-only file with a hole in it: what a write that failed leaves behind, and how it is mended.

use std::time::{Duration, Instant};

use super::probe::Info;

/// How long after a rewrite that failed the next is asked for.
const REWRITE_AGAIN: Duration = Duration::from_secs(10);

/// What a write that was cut short has done to the append-only file. Redis 7.0 takes the half write off the file's end but
/// goes on behind it: a hole stays, and nothing that follows could be read back. A rewrite makes the file whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tear {
    /// None is known of.
    #[default]
    Whole,
    /// A write failed. When a rewrite was last asked for, if it was.
    Torn(Option<Instant>),
    /// A rewrite was asked for then, and nothing has failed since.
    Mending(Instant),
}

impl Tear {
    /// What the next answer makes of it.
    pub(super) fn after(self, info: &Info) -> Self {
        let asked = match self {
            Tear::Whole => None,
            Tear::Torn(at) => at,
            Tear::Mending(at) => Some(at),
        };
        if info.text("aof_last_write_status") == "err" {
            return Tear::Torn(asked);
        }
        match self {
            Tear::Mending(_) if is_idle(info) && info.text("aof_last_bgrewrite_status") == "ok" => Tear::Whole,
            Tear::Mending(at) if is_idle(info) => Tear::Torn(Some(at)),
            same => same,
        }
    }

    /// Whether to ask for a rewrite: one that was under way when the write failed does not help, and one that failed is
    /// not repeated at every look.
    pub(super) fn wants_rewrite(self, info: &Info) -> bool {
        let due = |at: Instant| at.elapsed() >= REWRITE_AGAIN;
        let able = is_idle(info) && info.text("aof_last_write_status") == "ok";
        able && matches!(self, Tear::Torn(at) if at.is_none_or(due))
    }
}

/// Whether no rewrite is under way, nor about to be.
fn is_idle(info: &Info) -> bool {
    !info.flag("aof_rewrite_in_progress") && !info.flag("aof_rewrite_scheduled")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: &str = "aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0\r\naof_last_bgrewrite_status:ok\r\n\
        aof_last_write_status:ok\r\n";

    #[test]
    fn a_file_with_a_failed_write_is_whole_again_after_a_rewrite_that_began_later() {
        let rewriting = CALM.replace("progress:0", "progress:1");
        let failing = CALM.replace("write_status:ok", "write_status:err");
        let refused = CALM.replace("bgrewrite_status:ok", "bgrewrite_status:err");
        let [calm, rewriting, failing, refused] = [CALM, &rewriting, &failing, &refused].map(Info::read);
        assert_eq!(Tear::Whole.after(&calm), Tear::Whole);
        let torn = Tear::Whole.after(&failing);
        assert!(torn == Tear::Torn(None) && !torn.wants_rewrite(&failing) && !torn.wants_rewrite(&rewriting));
        assert!(torn.after(&calm) == torn && torn.wants_rewrite(&calm));
        let mending = Tear::Mending(Instant::now());
        assert_eq!(mending.after(&rewriting), mending);
        assert_eq!(mending.after(&calm), Tear::Whole);
        let failed = mending.after(&refused);
        assert!(matches!(failed, Tear::Torn(Some(_))) && !failed.wants_rewrite(&calm), "not at every look");
        assert!(matches!(mending.after(&failing), Tear::Torn(Some(_))));
    }
}
