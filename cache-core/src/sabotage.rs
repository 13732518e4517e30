//! Guards that a test can remove, to see that it finds what they guard against. Without the feature `testing` this is nothing.
//!
//! Removed for one thread: a simulation runs on one, and others run beside it.

/// Something without which the cache would serve what has been replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub, reason = "public for tests only"))]
#[allow(dead_code, reason = "which of them are asked for depends on the features")]
pub enum Guard {
    /// R1: an invalidation ends the lease of the run in flight, and its fill is refused.
    RemovalEndsLease,
    /// R2: so does an explicit write.
    WriteEndsLease,
    /// R5: a refresh replaces only the record it began with.
    RefreshReplacesItsRecord,
    /// R6: a change between a read and its fill of L1 refuses the fill.
    ChangePoisonsFill,
    /// T5: a push of a key drops its L1 entry.
    PushDropsEntry,
    /// R7: L1 is emptied when the link is lost.
    GapEmptiesLocal,
    /// R7: L1 serves nothing for longer than the staleness bound after the link was last seen alive.
    TrustEnds,
    /// R9: an own write drops the L1 entry and detaches the run in flight, before it is sent and after its reply.
    OwnWriteForgets,
    /// R10: each attempt has its own token.
    TokenOfAttempt,
    /// T7: a run is not joined if its function began, or its lease was last seen, longer ago than the
    /// staleness bound.
    UnseenRunIsNotJoined,
    /// R4: what is stored names the versions from before its run, in the foreground.
    VersionsFromBeforeRun,
    /// R4: and in the background.
    VersionsFromBeforeRefresh,
    /// R4: a tag that only the value tells is read with its kind, which must not have changed since before the run.
    KindsFromBeforeRun,
    /// R4: and its kind is read after the tag.
    TagsBeforeKinds,
    /// R4: which an invalidation renews before the tag.
    KindsBeforeTags,
    /// R4: a value in L1 goes by the versions it was stored under.
    VersionEndsLocal,
    /// R6: a change of a version between a read of it and its answer makes the answer worthless.
    ChangeForgetsRead,
    /// R7: nothing is known of versions after the link was lost.
    GapForgetsVersions,
    /// R16: a version that was lost is made anew, and is none that ever was.
    LostVersionIsNew,
    /// R21: an invalidation reaches the records of all builds.
    BuildsAreReached,
    /// R25: whoever makes the registry of builds anew, or finds none, gives the function another version.
    LostRegistryEndsEntries,
    /// R22: nothing is stored while a fence stands.
    FenceRefusesFills,
    /// R26: a write that failed is followed by an invalidation.
    FailedWriteIsFollowed,
    /// R27: the end of a fence leaves the others on its entry.
    FencesAreASet,
    /// R4, R22: the lift of a fence on tags renews their kinds.
    LiftRenewsKinds,
    /// R6: a batch marks its keys before its read is sent.
    BatchMarksBeforeRead,
    /// R6: and before its fills are.
    BatchMarksBeforeFill,
    /// X1: who finds a lease does not run.
    LeaseIsExclusive,
    /// R13: a lease whose renewal failed is renewed again.
    FailedRenewalIsRepeated,
    /// X7: a run that stored nothing leaves a mark for those who waited for it.
    UnstoredLeavesMark,
    /// V5: `cache_if` is asked.
    CacheIfIsAsked,
    /// A login is entered in its user's index in the step in which its session is stored.
    LoginIsEntered,
    /// Who ends all sessions of a user looks for new ones until there are none.
    EndingLooksAgain,
    /// C1: what is done leaves the list of what is outstanding.
    DoneIsTakenOff,
    /// C5: L1 lets go of what is more than its limit.
    LocalIsBounded,
    /// C1: a run that has ended leaves the table of flights.
    FlightLeaves,
    /// Who does not wait any more is not kept among those who do.
    WaiterLeaves,
    /// R7: trust counts from the sending of a heartbeat, not from its reply.
    TrustFromSending,
    /// R7: the trust of a new session counts from the sending of its last answered request, not
    /// from its publication.
    TrustFromLastAnswer,
    /// R7: nothing is trusted after the link was lost.
    LossRevokesTrust,
    /// R7: the gap is told before the next session is used.
    GapBeforePublish,
    /// An object is written only over what its change was made from.
    SwapCompares,
}

#[cfg(feature = "testing")]
thread_local!(static REMOVED: std::cell::Cell<Option<Guard>> = const { std::cell::Cell::new(None) });

/// Whether this guard is removed on this thread.
#[cfg(feature = "testing")]
pub(crate) fn is(guard: Guard) -> bool {
    REMOVED.get() == Some(guard)
}

/// Never: shipped programs keep their guards.
#[cfg(not(feature = "testing"))]
pub(crate) const fn is(_guard: Guard) -> bool {
    false
}

/// Runs `work` on this thread without a guard.
#[cfg(feature = "testing")]
pub fn without<T>(guard: Option<Guard>, work: impl FnOnce() -> T) -> T {
    REMOVED.set(guard);
    let result = work();
    REMOVED.set(None);
    result
}
