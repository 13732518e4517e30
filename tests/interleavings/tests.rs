//! Runs each model in thousands of interleavings. With a guard removed, one of them must break the
//! model.
//!
//! `INTERLEAVINGS=100000` tries more of them.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::panic::catch_unwind;

use interleavings::{Invariant, explore, without};

/// The number of orders for each of the five ways to draw them.
const ORDERS: usize = 2000;

fn orders() -> usize {
    std::env::var("INTERLEAVINGS").map_or(ORDERS, |text| text.parse().unwrap())
}

fn breaks_without(guard: Invariant, model: fn()) {
    // Try more orders if chance did not find it at first.
    let found = [1, 4].iter().any(|times| {
        without(Some(guard), || catch_unwind(|| explore(orders().saturating_mul(*times), model)).is_err())
    });
    assert!(found, "without {guard:?} no interleaving breaks it");
}

macro_rules! models {
    ($($(#[$attribute:meta])* $name:ident,)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            explore(orders(), interleavings::$name);
        }
    )*};
}

models! {
    // S1, S3, R19
    callers_share_one_run,
    // S4, R20
    a_follower_leads_where_the_leader_is_dropped,
    // S1, S3, R19
    callers_share_one_task,
    // S4, S5, R20
    a_task_goes_on_where_one_that_waits_is_dropped,
    // T7
    a_caller_after_a_detachment_joins_no_earlier_run,
    // T7: of a version.
    a_caller_after_a_change_of_a_version_joins_no_earlier_run,
    // R19
    a_run_that_ends_detaches_no_other,
    // R6, T4
    no_fill_survives_a_change_of_its_key,
    // R7
    no_fill_survives_a_gap,
    // R6
    pending_fills_end_with_their_reads,
    // R4, R6
    no_dependency_holds_after_its_version_has_changed,
    // R4, R6
    no_value_is_served_under_a_version_that_has_changed,
    // R4, R7
    no_value_is_kept_under_a_version_from_before_a_gap,
}

#[test]
// R6
fn a_fill_that_ignores_changes_is_found() {
    breaks_without(Invariant::ChangePoisonsFill, interleavings::no_fill_survives_a_change_of_its_key);
    breaks_without(Invariant::ChangePoisonsFill, interleavings::no_fill_survives_a_gap);
}

#[test]
// R6: of a version.
fn a_version_learned_over_a_change_is_found() {
    breaks_without(Invariant::ChangeForgetsRead, interleavings::no_value_is_served_under_a_version_that_has_changed);
}

#[test]
// R4
fn a_tier_that_ignores_versions_is_found() {
    breaks_without(Invariant::VersionEndsLocal, interleavings::no_value_is_served_under_a_version_that_has_changed);
}
