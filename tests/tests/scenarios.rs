//! The nine traces that an explicit-state model of the design found to lose writes: each is played exactly, and closed;
//! and where a rule can be taken out of the models, the same trace shows the loss.

use understudy_tests::sim::{Bug, Case, play};

/// The trace is closed; with `bug`, which takes its rule away, it is not.
fn closed(case: Case, bug: Option<Bug>) {
    if let Err(what) = play(case, None) {
        panic!("{case:?}: {what}");
    }
    let Some(bug) = bug else { return };
    match play(case, Some(bug)) {
        Ok(()) => panic!("{case:?}: {bug:?} is not seen"),
        Err(what) => {
            // The loss, not a step that never came about.
            assert!(!what.starts_with("step"), "{case:?} with {bug:?}: {what}");
            println!("{case:?} with {bug:?}: {what}");
        }
    }
}

#[test]
fn m1_whether_to_wait_is_read_from_the_database() {
    closed(Case::M1, Some(Bug::NeedFromRecord));
}

#[test]
fn m2_a_restarted_agent_first_sees_its_own_transaction() {
    closed(Case::M2, Some(Bug::RenewsInWords));
}

#[test]
fn m3_every_write_is_on_disk_before_the_drop() {
    closed(Case::M3, Some(Bug::FsyncDoesNothing));
}

#[test]
fn m4_every_write_is_on_disk_before_a_new_master_opens() {
    closed(Case::M4, Some(Bug::FsyncDoesNothing));
}

#[test]
fn m5_effects_carry_the_whole_stamp() {
    closed(Case::M5, None);
}

#[test]
fn m6_who_takes_back_has_followed_nobody() {
    closed(Case::M6, Some(Bug::FencedByFollowing));
}

#[test]
fn m7_the_marker_of_the_last_active_epoch_counts_while_promoting() {
    closed(Case::M7, None);
}

#[test]
fn m8_of_two_that_were_restarted_the_newer_goes_on() {
    closed(Case::M8, Some(Bug::MarkersAlike));
}

#[test]
fn m9_nobody_else_acknowledges_before_the_drop_is_confirmed() {
    closed(Case::M9, Some(Bug::ChannelNotExclusive));
}

#[test]
fn a_planned_switchover_cuts_no_client_off() {
    closed(Case::Handover, Some(Bug::QuietInWords));
}

#[test]
fn with_fsync_either_of_the_two_disks_is_enough() {
    closed(Case::BothDisks, Some(Bug::FsyncDoesNothing));
}

#[test]
fn a_durable_read_is_not_answered_by_an_old_acknowledgement() {
    closed(Case::DurableReads, Some(Bug::DurableReadPings));
}
