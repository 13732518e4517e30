//! Removes each guard in turn. The checker must then find a violation.

use std::io::Write as _;

use cache_core::testing::sim::Invariant;

use super::first_violation;
use super::functions::{LISTED, OF_AN_OWNER, PICKY, TAGGED};
use super::simulation::{Aim, Setup, simulate};

/// The maximum number of seeds to try until a mutation is found.
const SEEDS: u64 = 4000;

/// Checks that a violation is found without `guard`.
///
/// `aim` restricts the run to one function or a user's sessions if the guard concerns nothing else,
/// so that fewer seeds are needed. `recorded` is the seed that found the violation when the table
/// below was written. It is tried first, because a search takes a minute if few seeds find it.
#[track_caller]
fn is_found_without(guard: Invariant, recorded: u64, aim: Option<Aim>) {
    let setup = Setup { seed: recorded, without: Some(guard), aim, ..Setup::default() };
    if simulate(&setup).violation.is_some() {
        return;
    }
    match first_violation(SEEDS, &setup) {
        Some((setup, outcome)) => {
            let (seed, violation) = (setup.seed, outcome.violation.unwrap());
            let mut out = std::io::stdout().lock();
            writeln!(out, "without {guard:?}: seed {seed}, not {recorded}, of {SEEDS}: {violation}").unwrap();
        }
        None => panic!("{SEEDS} seeds without {guard:?}, and nothing was found"),
    }
}

macro_rules! guards {
    ($($(#[$attribute:meta])* $name:ident: $guard:ident at $seed:literal $(of $function:expr)? $(; $aim:expr)?,)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            let aim: &[Aim] = &[$(Aim::Function($function))? $($aim)?];
            is_found_without(Invariant::$guard, $seed, aim.first().copied());
        }
    )*};
}

guards! {
    // R1
    an_invalidation_that_leaves_the_fill_in_flight_is_found: RemovalEndsLease at 14,
    // R2
    a_run_that_overwrites_an_explicit_set_is_found: WriteEndsLease at 18,
    // R5
    a_refresh_that_overwrites_what_came_after_it_is_found: RefreshReplacesItsRecord at 61,
    // R6
    a_fill_of_l1_with_what_was_replaced_meanwhile_is_found: ChangePoisonsFill at 23,
    // T5
    an_l1_that_ignores_pushes_is_found: PushDropsEntry at 26,
    // R7
    an_l1_that_outlives_its_link_is_found: GapEmptiesLocal at 24 of 0,
    // R7
    an_l1_that_trusts_a_silent_link_is_found: TrustEnds at 68 of 0,
    // R9
    an_own_write_that_leaves_l1_is_found: OwnWriteForgets at 4,
    // R10
    one_lease_token_for_a_whole_client_is_found: TokenOfAttempt at 59,
    // T7
    a_join_of_a_run_that_was_not_seen_is_found: UnseenRunIsNotJoined at 321 of 1,
    // R4: of a function, and of everything.
    a_fill_under_versions_from_after_its_run_is_found: VersionsFromBeforeRun at 5,
    // R4
    a_refresh_under_versions_from_after_its_run_is_found: VersionsFromBeforeRefresh at 112 of TAGGED,
    // R4: of a tag of the value.
    a_tag_that_is_read_after_the_run_alone_is_found: KindsFromBeforeRun at 71 of OF_AN_OWNER,
    // R4
    a_kind_that_is_read_before_its_tag_is_found: TagsBeforeKinds at 188 of OF_AN_OWNER,
    // R4
    a_kind_that_is_renewed_after_its_tag_is_found: KindsBeforeTags at 622 of OF_AN_OWNER,
    // R4, I2
    an_l1_that_ignores_versions_is_found: VersionEndsLocal at 2,
    // R6: of a version.
    a_version_that_changed_before_its_answer_is_found: ChangeForgetsRead at 161 of OF_AN_OWNER,
    // R7: of a version.
    a_version_that_outlives_its_link_is_found: GapForgetsVersions at 108 of TAGGED,
    // R16
    a_lost_version_that_begins_again_is_found: LostVersionIsNew at 83,
    // R21
    an_invalidation_that_passes_over_other_builds_is_found: BuildsAreReached at 52,
    // R25
    a_registry_whose_loss_goes_unnoticed_is_found: LostRegistryEndsEntries at 646 of 2,
    // R22
    a_fence_that_lets_fills_through_is_found: FenceRefusesFills at 562,
    // R26
    a_write_that_failed_and_lands_last_is_found: FailedWriteIsFollowed at 182; Aim::Cell,
    // R27
    a_lift_that_ends_the_fences_of_others_is_found: FencesAreASet at 0; Aim::Fences,
    // R4, R22: of a tag of the value.
    a_lift_that_leaves_the_kinds_of_its_tags_is_found: LiftRenewsKinds at 85 of OF_AN_OWNER,
    an_update_of_an_object_that_overwrites_another_is_found: SwapCompares at 12,
    // R13: of a batch with partly renewed leases.
    a_lease_that_is_given_up_after_a_renewal_that_failed_is_found: FailedRenewalIsRepeated at 1264 of LISTED,
    // X7
    a_queue_behind_a_run_that_stores_nothing_is_found: UnstoredLeavesMark at 0 of PICKY,
    // V5
    a_value_stored_against_its_rules_is_found: CacheIfIsAsked at 2 of PICKY,
    a_login_missing_from_its_users_list_is_found: LoginIsEntered at 0; Aim::Account,
    a_session_that_changes_its_id_while_all_are_ended_is_found: EndingLooksAgain at 5; Aim::Account,
    // C1
    an_operation_that_stays_outstanding_is_found: DoneIsTakenOff at 0,
    // C1
    a_run_that_stays_in_the_table_of_flights_is_found: FlightLeaves at 0 of 1,
    // C5
    an_l1_without_a_bound_is_found: LocalIsBounded at 13 of 1,
    // R6: of a batch.
    a_batch_that_marks_its_keys_after_its_read_is_found: BatchMarksBeforeRead at 27 of LISTED,
    // R6: of a batch.
    a_batch_that_marks_its_keys_after_its_fills_is_found: BatchMarksBeforeFill at 202 of LISTED,
    // X1: shows that the rule of one run can be broken.
    a_run_beside_the_lease_of_another_process_is_found: LeaseIsExclusive at 13,
    // Shows that the rule of leftover tasks can be broken.
    a_waiter_that_stays_behind_is_found: WaiterLeaves at 96,
    // R7
    a_trust_that_counts_from_the_reply_is_found: TrustFromSending at 0,
    // R7
    a_trust_that_counts_from_the_publication_is_found: TrustFromLastAnswer at 0,
    // R7
    a_trust_that_outlives_its_link_is_found: LossRevokesTrust at 0,
    // R7
    a_link_that_is_used_before_its_gap_is_reported_is_found: GapBeforePublish at 0,
}
