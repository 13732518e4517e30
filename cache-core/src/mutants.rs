//! Guards that a test can disable, to check that the test detects the fault which the guard
//! prevents. Without the feature `testing`, no guard can be disabled.
//!
//! A guard is disabled for one thread only: a simulation runs on one thread, and other simulations
//! run in parallel.

/// A guard without which the cache would serve replaced values or break another promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(not(feature = "testing"), allow(unreachable_pub, reason = "public for tests only"))]
#[allow(dead_code, reason = "which of them are asked for depends on the features")]
pub enum Invariant {
    /// R1: an invalidation ends the lease of the run in flight, and the run's fill is refused.
    RemovalEndsLease,
    /// R2: an explicit write does the same.
    WriteEndsLease,
    /// R5: a refresh replaces only the record that it began with.
    RefreshReplacesItsRecord,
    /// R6: a change between a read and its fill of L1 refuses the fill.
    ChangePoisonsFill,
    /// T5: a pushed change of a key drops the key's L1 entry.
    PushDropsEntry,
    /// R7: L1 is emptied when the link is lost.
    GapEmptiesLocal,
    /// R7: L1 serves nothing after the staleness bound has passed since the link was last seen
    /// alive.
    TrustEnds,
    /// R9: a write of this process drops the L1 entry and detaches the run in flight, both before
    /// it is sent and after its reply.
    OwnWriteForgets,
    /// R10: each attempt has its own token.
    TokenOfAttempt,
    /// T7: a caller does not join a run whose function began, or whose lease was last seen, longer
    /// ago than the staleness bound.
    UnseenRunIsNotJoined,
    /// R4: a foreground run stores its value with the versions read before the run.
    VersionsFromBeforeRun,
    /// R4: so does a background refresh.
    VersionsFromBeforeRefresh,
    /// R4: a tag that is only known from the value is read together with its kind, and the kind
    /// must not have changed since before the run.
    KindsFromBeforeRun,
    /// R4: the kind is read after the tag.
    TagsBeforeKinds,
    /// R4: an invalidation renews the kind before the tag.
    KindsBeforeTags,
    /// R4: a value in L1 is valid only under the versions with which it was stored.
    VersionEndsLocal,
    /// R6: if a version changes between a read of it and the reply, the reply is discarded.
    ChangeForgetsRead,
    /// R7: all known versions are forgotten when the link is lost.
    GapForgetsVersions,
    /// R16: a lost version is replaced by a new one that never existed before.
    LostVersionIsNew,
    /// R21: an invalidation reaches the records of all builds.
    BuildsAreReached,
    /// R25: a process that recreates the registry of builds, or finds none, gives the function
    /// another version.
    LostRegistryEndsEntries,
    /// R22: nothing is stored under a raised fence.
    FenceRefusesFills,
    /// R26: a failed write is followed by an invalidation.
    FailedWriteIsFollowed,
    /// R27: the end of one fence leaves the other fences on the entry.
    FencesAreASet,
    /// R4, R22: lifting a fence on tags renews their kinds.
    LiftRenewsKinds,
    /// R6: a batch marks its keys before it sends its read.
    BatchMarksBeforeRead,
    /// R6: a batch marks its keys before it sends its fills.
    BatchMarksBeforeFill,
    /// X1: a caller that finds a lease does not compute.
    LeaseIsExclusive,
    /// R13: a failed renewal of a lease is retried.
    FailedRenewalIsRepeated,
    /// X7: a run that stored nothing leaves a mark for the callers that waited for it.
    UnstoredLeavesMark,
    /// V5: `cache_if` is evaluated.
    CacheIfIsAsked,
    /// A login is added to its user's index in the same step that stores its session.
    LoginIsEntered,
    /// Ending all sessions of a user repeats until it finds no more.
    EndingLooksAgain,
    /// C1: a completed operation leaves the list of outstanding operations.
    DoneIsTakenOff,
    /// C5: L1 evicts what exceeds its limit.
    LocalIsBounded,
    /// C1: a run that has ended leaves the table of flights.
    FlightLeaves,
    /// A waiter that has gone away leaves the list of waiters.
    WaiterLeaves,
    /// R7: trust counts from when a heartbeat is sent, not from its reply.
    TrustFromSending,
    /// R7: the trust of a new connection counts from when its last answered request was sent, not
    /// from when the connection is published.
    TrustFromLastAnswer,
    /// R7: nothing is trusted after the link was lost.
    LossRevokesTrust,
    /// R7: the gap is reported before the next connection is used.
    GapBeforePublish,
    /// An object is written only over the bytes that its change was made from.
    SwapCompares,
}

#[cfg(feature = "testing")]
thread_local!(static REMOVED: std::cell::Cell<Option<Invariant>> = const { std::cell::Cell::new(None) });

/// Returns whether this guard is disabled on this thread.
#[cfg(feature = "testing")]
pub(crate) fn removed(guard: Invariant) -> bool {
    REMOVED.get() == Some(guard)
}

/// Returns `false`: guards cannot be disabled without the feature `testing`.
#[cfg(not(feature = "testing"))]
pub(crate) const fn removed(_guard: Invariant) -> bool {
    false
}

/// Runs `work` on this thread with a guard disabled.
#[cfg(feature = "testing")]
pub fn without<T>(guard: Option<Invariant>, work: impl FnOnce() -> T) -> T {
    REMOVED.set(guard);
    let result = work();
    REMOVED.set(None);
    result
}
