//! Leases: the right to fill a key, over all processes that share the store.
//!
//! Invariant: a token belongs to one attempt. Any other change of the key (an invalidation, a
//! `set`, an eviction, a `DEL` typed by a person) ends the lease, and a fill without its lease
//! stores nothing (R1, R2, R10, R12).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::{Clock, Stopwatch};
use crate::error::{Error, Result};
use crate::key::EntryKey;
use crate::mutants::{self, Invariant};
use crate::observe::events::{Events, bump};
use crate::observe::history::{History, HistoryEvent};
use crate::options::Limits;
use crate::store::{
    Acquired, Claim, Fill, Filled, LeaseTarget, Operation, PlainFill, Replaces, Rewrite, Slot, Store, THROTTLE_MARK,
    Token, Want, lease_key,
};

/// How long the mark of a run that stored nothing is kept. In that time its waiters take over (X7).
const UNSTORED_FOR: Duration = Duration::from_secs(1);

/// The leases of one cache.
pub(crate) struct Leases {
    store: Arc<dyn Store>,
    clock: Clock,
    history: Arc<History>,
    events: Events,
    /// How long a lease lasts.
    limit: Duration,
    max_staleness: Duration,
}

/// A lease that was ours when it was taken. If it is dropped, it is released as soon as the store
/// can be reached.
pub(crate) struct Lease {
    leases: Arc<Leases>,
    key: Arc<str>,
    token: Token,
    over: Replaces,
    /// Whether it must still be released.
    held: bool,
}

/// What the run learns of its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseNotice {
    /// It was still ours after this moment on the boot clock.
    Stood(u64),
    /// It was lost: callers must not join the run any more.
    Lost,
}

/// The reason why a lease could not be taken.
pub(crate) enum Obstacle {
    /// The key has this content.
    Slot(Slot),
    /// The last refresh of the record failed, and the next one must wait for this long.
    Throttle(Option<Duration>),
}

impl Leases {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        history: Arc<History>,
        events: Events,
        limits: &Limits,
    ) -> Arc<Self> {
        let (limit, max_staleness) = (limits.lease, limits.max_staleness);
        Arc::new(Self { store, clock, history, events, limit, max_staleness })
    }

    /// Takes the lease at this place, or returns what prevents it.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        key: &EntryKey,
        target: LeaseTarget,
    ) -> Result<Result<Lease, Obstacle>> {
        let lease = self.wanted(key, target);
        let acquired = self.store.acquire(&lease.want(target), self.limit).await;
        lease.answered(acquired)
    }

    /// Takes a lease for each key, or returns what prevents it, in one round trip.
    pub(crate) async fn acquire_many(
        self: &Arc<Self>,
        wanted: &[(&EntryKey, LeaseTarget)],
    ) -> Result<Vec<Result<Result<Lease, Obstacle>>>> {
        let leases: Vec<Lease> = wanted.iter().map(|(key, target)| self.wanted(key, *target)).collect();
        let want = |(lease, (_, target)): (&Lease, &(_, LeaseTarget))| lease.want(*target);
        let wants: Vec<Want> = leases.iter().zip(wanted).map(want).collect();
        // Dropped here: all of them are released.
        match self.store.acquire_many(&wants, self.limit).await {
            Ok(answers) => Ok(leases.into_iter().zip(answers).map(|(lease, answer)| lease.answered(answer)).collect()),
            Err(error) => {
                leases.into_iter().for_each(|lease| lease.unanswered(&error));
                Err(error)
            }
        }
    }

    fn wanted(self: &Arc<Self>, key: &EntryKey, target: LeaseTarget) -> Lease {
        let token = self.token();
        // Made before the request: if the call is dropped during the request, the lease may be
        // ours.
        Lease {
            leases: Arc::clone(self),
            key: Arc::clone(&key.value_key),
            token: if matches!(target, LeaseTarget::OverMark(_)) { token.unawaited() } else { token },
            over: target.over(),
            held: true,
        }
    }

    /// Like [`Lease::keep`], for the leases of one run, which are renewed together.
    pub(crate) async fn keep_all<T>(
        &self,
        leases: &[Lease],
        tell: &(dyn Fn(&str, LeaseNotice) + Sync),
        work: impl Future<Output = T>,
    ) -> T {
        let limit = self.limit;
        let pause = limit.mul_f64(1.0 / 3.0).min(self.max_staleness.mul_f64(0.5));
        let started = self.clock.start();
        let renewal = async {
            let mut claims: Vec<Claim> = leases.iter().map(Lease::claim).collect();
            // Counted from the start, so that a slow renewal does not delay the next one.
            for renewals in 1_u32.. {
                if claims.is_empty() {
                    break;
                }
                started.reaches(pause.saturating_mul(renewals)).await;
                let asked_at = self.clock.boot();
                let renewed = match self.store.renew_many(&claims, limit).await {
                    Ok(renewed) => renewed,
                    Err(error) => {
                        self.store_failed(&error);
                        continue;
                    }
                };
                let mut answers = renewed.into_iter();
                claims.retain(|claim| match answers.next() {
                    Some(Ok(true)) => {
                        tell(&claim.key, LeaseNotice::Stood(asked_at));
                        bump(&self.events.count().renewals);
                        self.history.note(&claim.key, HistoryEvent::LeaseRenewed);
                        true
                    }
                    // The lease is lost, so the fill will be refused. Later callers start a new
                    // run.
                    Some(Ok(false)) => {
                        self.history.note(&claim.key, HistoryEvent::LeaseLost);
                        tell(&claim.key, LeaseNotice::Lost);
                        false
                    }
                    Some(Err(error)) => {
                        self.store_failed(&error);
                        !mutants::removed(Invariant::FailedRenewalIsRepeated)
                    }
                    None => true,
                });
            }
            std::future::pending::<T>().await
        };
        tokio::select! {
            biased;
            done = work => done,
            never = renewal => never,
        }
    }

    /// Fills under each of these leases that is still ours, in one round trip.
    pub(crate) async fn fill_many(&self, fills: Vec<(Lease, Bytes, Duration, bool)>) -> Result<Vec<Result<Filled>>> {
        let fill = |(lease, record, expiry, track): &(Lease, Bytes, Duration, bool)| Fill {
            claim: lease.claim(),
            record: record.clone(),
            expiry: *expiry,
            track: *track,
        };
        let filled = self.store.fill_many(&fills.iter().map(fill).collect::<Vec<_>>()).await?;
        for ((lease, ..), _) in fills.into_iter().zip(&filled).filter(|(_, filled)| filled.is_ok()) {
            lease.forget();
        }
        Ok(filled)
    }

    /// Releases the leases in one round trip.
    pub(crate) async fn release_many(&self, leases: Vec<Lease>, end: End) -> Result<()> {
        if leases.is_empty() {
            return Ok(());
        }
        let claims: Vec<Claim> = leases.iter().map(Lease::claim).collect();
        self.store.release_many(&claims, end.unstored()).await?;
        leases.into_iter().for_each(Lease::forget);
        Ok(())
    }

    /// Returns whether there is a lease next to the record of this key that this caller waits for.
    /// A release changes only the lease key, while waiters watch the record. So they call this once
    /// more after the watch has begun.
    pub(crate) async fn is_awaited_beside(&self, key: &str, is_refresh: bool) -> Result<bool> {
        Ok(match self.store.read(&lease_key(key)).await? {
            Slot::Bytes(bytes) => bytes != THROTTLE_MARK.as_bytes(),
            // A refresh must store its value, so it waits.
            Slot::Unawaited(_) => is_refresh,
            _ => false,
        })
    }

    /// Returns a new token. Test only: without the guard it identifies the client, not the attempt.
    fn token(self: &Arc<Self>) -> Token {
        if mutants::removed(Invariant::TokenOfAttempt) {
            return Token::from_bits(Arc::as_ptr(self).addr() as u128);
        }
        Token::random()
    }

    fn store_failed(&self, error: &Error) {
        self.events.store_failed(error, self.store.is_available());
    }
}

impl Lease {
    fn answered(mut self, acquired: Result<Acquired>) -> Result<Result<Self, Obstacle>> {
        match acquired {
            Ok(Acquired::Ours) => {
                self.leases.history.note(&self.key, HistoryEvent::LeaseTaken);
                Ok(Ok(self))
            }
            Ok(Acquired::Unawaited) => {
                self.token = self.token.unawaited();
                self.leases.history.note(&self.key, HistoryEvent::LeaseTaken);
                Ok(Ok(self))
            }
            Ok(Acquired::Found(Slot::Leased(_))) if mutants::removed(Invariant::LeaseIsExclusive) => Ok(Ok(self)),
            Ok(Acquired::Found(slot)) => {
                self.held = false;
                Ok(Err(Obstacle::Slot(slot)))
            }
            Ok(Acquired::Throttled(left)) => {
                self.held = false;
                Ok(Err(Obstacle::Throttle(left)))
            }
            Err(error) => {
                self.unanswered(&error);
                Err(error)
            }
        }
    }

    /// Handles a missing answer. The lease may be ours, so it is released in any case (R11).
    fn unanswered(mut self, error: &Error) {
        self.held = error.may_have_happened();
    }

    /// Drives `work`, and renews the lease meanwhile. The interval is a third of its time, so that
    /// it does not end, or half the staleness bound if that is shorter, because a run that may have
    /// been invalidated elsewhere must not be joined for longer than the bound. If the store does
    /// not answer, the run goes on for its waiters. `tell` is called with a key and what was
    /// learned of its lease.
    pub(crate) async fn keep<T>(&self, tell: &(dyn Fn(&str, LeaseNotice) + Sync), work: impl Future<Output = T>) -> T {
        self.leases.keep_all(std::slice::from_ref(self), tell, work).await
    }

    fn want(&self, target: LeaseTarget) -> Want {
        Want { key: Arc::clone(&self.key), token: self.token, target }
    }

    fn claim(&self) -> Claim {
        Claim { key: Arc::clone(&self.key), token: self.token, over: self.over }
    }

    /// Stores the record if the lease is still ours. `track`: L1 keeps the value until it is
    /// notified of a change.
    pub(crate) async fn fill(mut self, record: Bytes, expiry: Duration, track: bool) -> Result<Filled> {
        let fill = Fill { claim: self.claim(), record, expiry, track };
        let filled = self.leases.store.fill(&fill).await?;
        self.held = false;
        Ok(filled)
    }

    /// Stores a plain value if the lease is still ours, and only over exactly the bytes in `over`.
    /// The lease is a second key.
    pub(crate) async fn fill_plain(
        mut self,
        key: &str,
        over: Option<Bytes>,
        bytes: Bytes,
        expiry: Duration,
    ) -> Result<bool> {
        let lease = Arc::clone(&self.key);
        let fill = PlainFill { key, lease: &lease, token: self.token, over, bytes, expiry };
        let stored = self.leases.store.fill_plain(fill).await?;
        self.held = false;
        Ok(stored)
    }

    /// Marks the lease as released.
    fn forget(mut self) {
        self.held = false;
    }

    /// Rewrites the first bytes of the record next to the lease, if both are still there.
    pub(crate) async fn rewrite_head(mut self, head: Bytes, expiry: Duration) -> Result<bool> {
        let Replaces::Stale(fill_id) = self.over else { return self.release(End::Free).await.map(|()| false) };
        let rewrite = Rewrite { key: &self.key, token: self.token, fill_id, head, expiry };
        let rewritten = self.leases.store.rewrite_head(rewrite).await?;
        self.held = false;
        Ok(rewritten)
    }

    /// Returns the record that the lease is next to.
    pub(crate) fn over(&self) -> Replaces {
        self.over
    }

    /// Releases the lease after a failed refresh: no process retries during the throttle. Returns
    /// whether the lease was still ours, and so the record was still there.
    pub(crate) async fn throttle(mut self, throttle: Duration) -> Result<bool> {
        let stood = self.leases.store.throttle(&self.key, self.token, throttle).await?;
        self.held = false;
        Ok(stood)
    }

    /// Releases the lease, so that the next caller need not wait for its end.
    pub(crate) async fn release(mut self, end: End) -> Result<()> {
        self.leases.store.release(&self.claim(), end.unstored()).await?;
        self.held = false;
        Ok(())
    }
}

/// What a released lease leaves for its waiters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing: one of them takes the lease, and the others wait for it.
    Free,
    /// A mark for a moment: the run stored nothing, so each process runs at once (X7).
    Unstored,
}

impl End {
    fn unstored(self) -> Option<Duration> {
        (self == Self::Unstored && !mutants::removed(Invariant::UnstoredLeavesMark)).then_some(UNSTORED_FOR)
    }
}

/// Renews leases that are taken, or filled, in many round trips. During the run itself,
/// [`Leases::keep_all`] does it.
pub(crate) struct Renewals(Stopwatch);

impl Renewals {
    /// Starts the time for leases that were taken just now.
    pub(crate) fn start(of: &Leases) -> Self {
        Self(of.clock.start())
    }

    /// Renews all of these if a third of a lease's time has passed since the last renewal. `tell`
    /// is called with the number of a lease and what was learned of it.
    pub(crate) async fn renew_when_due<'a>(
        &mut self,
        of: &Leases,
        leases: impl Iterator<Item = (usize, &'a Lease)>,
        tell: impl Fn(usize, LeaseNotice),
    ) {
        let limit = of.limit;
        if self.0.elapsed() < limit.mul_f64(1.0 / 3.0) {
            return;
        }
        let (with, claims): (Vec<usize>, Vec<Claim>) = leases.map(|(with, lease)| (with, lease.claim())).unzip();
        let asked_at = of.clock.boot();
        self.0 = of.clock.start();
        let renewed = match of.store.renew_many(&claims, limit).await {
            Ok(renewed) => renewed,
            Err(error) => return of.store_failed(&error),
        };
        for ((claim, with), renewed) in claims.iter().zip(with).zip(renewed) {
            match renewed {
                Ok(true) => {
                    tell(with, LeaseNotice::Stood(asked_at));
                    bump(&of.events.count().renewals);
                    of.history.note(&claim.key, HistoryEvent::LeaseRenewed);
                }
                // The fill will be refused. Later callers start a new run.
                Ok(false) => {
                    of.history.note(&claim.key, HistoryEvent::LeaseLost);
                    tell(with, LeaseNotice::Lost);
                }
                Err(error) => of.store_failed(&error),
            }
        }
    }
}

/// If a caller is dropped, the next one must not have to wait for the end of the lease.
impl Drop for Lease {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        // Works in any thread, also outside a runtime. After the shutdown the lease expires by
        // itself.
        self.leases.store.later(Operation::Release(self.claim(), self.leases.limit));
    }
}
