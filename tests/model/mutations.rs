//! Each guard removed in turn: the checker has to find what it guards against.

use std::io::Write as _;

use cache_core::testing::sim::Guard;

use super::first_violation;

/// How many seeds a mutation may take to be found.
const SEEDS: u64 = 4000;

#[track_caller]
fn is_found_without(guard: Guard) {
    match first_violation(SEEDS, Some(guard)) {
        Some((seed, outcome)) => {
            let mut out = std::io::stdout().lock();
            writeln!(out, "without {guard:?}: seed {seed} of {SEEDS}, {}", outcome.violation.unwrap()).unwrap();
        }
        None => panic!("{SEEDS} seeds without {guard:?}, and nothing was found"),
    }
}

macro_rules! guards {
    ($($(#[$attribute:meta])* $name:ident: $guard:ident,)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            is_found_without(Guard::$guard);
        }
    )*};
}

guards! {
    // R1
    an_invalidation_that_leaves_the_fill_in_flight_is_found: RemovalEndsLease,
    // R2
    a_run_that_overwrites_an_explicit_set_is_found: WriteEndsLease,
    // R5
    a_refresh_that_overwrites_what_came_after_it_is_found: RefreshReplacesItsRecord,
    // R6
    a_fill_of_l1_with_what_was_replaced_meanwhile_is_found: ChangePoisonsFill,
    // T5
    an_l1_that_is_deaf_to_pushes_is_found: PushDropsEntry,
    // R7
    an_l1_that_outlives_its_link_is_found: GapEmptiesLocal,
    // R7
    an_l1_that_trusts_a_silent_link_is_found: TrustEnds,
    // R9
    an_own_write_that_leaves_l1_is_found: OwnWriteForgets,
    // R10
    a_token_of_a_client_is_found: TokenOfAttempt,
    // T7
    a_run_that_is_joined_after_its_lease_was_lost_is_found: LostLeaseDetaches,
    // T7
    a_run_that_is_joined_though_nothing_tells_of_it_is_found: UnseenRunDetaches,
    // R4: of a function, of everything too.
    a_fill_under_versions_from_after_its_run_is_found: VersionsFromBeforeRun,
    // R4
    a_refresh_under_versions_from_after_its_run_is_found: VersionsFromBeforeRefresh,
    // R4: a tag of the value.
    a_tag_that_is_read_after_the_run_alone_is_found: KindsFromBeforeRun,
    // R4, I2
    an_l1_that_does_not_go_by_versions_is_found: VersionEndsLocal,
    // R6: of a version.
    a_version_that_changed_before_its_answer_is_found: ChangeForgetsRead,
    // R7: of a version.
    a_version_that_outlives_its_link_is_found: GapForgetsVersions,
    // R16
    a_lost_version_that_begins_again_is_found: LostVersionIsNew,
    // R21
    an_invalidation_that_passes_over_other_builds_is_found: BuildsAreReached,
    // R22
    a_fence_that_lets_fills_through_is_found: FenceRefusesFills,
}
