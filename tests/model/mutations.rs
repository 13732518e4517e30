//! Each guard removed in turn: the checker has to find what it guards against.

use cache_core::testing::sim::Guard;

use super::first_violation;

/// How many seeds a mutation may take to be found.
const SEEDS: u64 = 2000;

#[track_caller]
fn is_found_without(guard: Guard) {
    let found = first_violation(SEEDS, Some(guard));
    assert!(found.is_some(), "{SEEDS} seeds without {guard:?}, and nothing was found");
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
    // Here: the guards of tag versions.
}
