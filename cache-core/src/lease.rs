//! The right to fill a key, over all processes that share the store.
//!
//! Invariant: a token belongs to one attempt. Whatever else touches the key (an invalidation, a set, an eviction, a `DEL`
//! typed by hand) ends the lease, and a fill without its lease stores nothing (R1, R2, R10, R12).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cache::Inner;
use crate::clock::Stopwatch;
use crate::entry::EntryKey;
use crate::error::{Error, Result};
use crate::events::bump;
use crate::history::What;
use crate::sabotage::{self, Guard};
use crate::store::{
    Acquired, Claim, Fill, Filled, Operation, Over, Place, PlainFill, Slot, THROTTLE_MARK, Token, Want, lease_key,
};

/// How long the mark of a run that stored nothing stands: those who waited for it take over meanwhile (X7).
const UNSTORED_FOR: Duration = Duration::from_secs(1);

/// A lease that was ours when it was taken. Dropped, it is given back as soon as the store can be reached.
pub(crate) struct Lease {
    inner: Arc<Inner>,
    key: Arc<str>,
    token: Token,
    over: Over,
    /// Whether it has still to be given back.
    held: bool,
}

/// What is learned of a lease while its run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It stood after this moment on the boot clock.
    Stood(u64),
    /// It is another's now: the run is not to be joined any more.
    Lost,
}

/// What stands in the way of a lease.
pub(crate) enum Obstacle {
    /// This is there now.
    Slot(Slot),
    /// The last refresh of the record failed, and the next one has to wait that long.
    Throttle(Option<Duration>),
}

impl Lease {
    /// Takes it, or tells what stands in the way.
    pub(crate) async fn acquire(inner: &Arc<Inner>, key: &EntryKey, over: Over) -> Result<Result<Self, Obstacle>> {
        let place = match over {
            Over::Nothing => Place::Empty,
            Over::Record(fill_id) => Place::Beside(fill_id),
        };
        let lease = Self::wanted(inner, key, place);
        let acquired = inner.store.acquire(&lease.key, lease.token, inner.limits.lease, over).await;
        lease.answered(acquired)
    }

    /// Takes it in the place of a record that an invalidation has ended.
    pub(crate) async fn acquire_in_place(
        inner: &Arc<Inner>,
        key: &EntryKey,
        fill_id: u64,
    ) -> Result<Result<Self, Obstacle>> {
        let lease = Self::wanted(inner, key, Place::Instead(fill_id));
        let acquired = inner.store.acquire_in_place(&lease.key, lease.token, inner.limits.lease, fill_id).await;
        lease.answered(acquired)
    }

    /// Takes it in the place of the mark of a run that stored nothing. Others do not wait for it (X7).
    pub(crate) async fn acquire_over_mark(
        inner: &Arc<Inner>,
        key: &EntryKey,
        mark: Token,
    ) -> Result<Result<Self, Obstacle>> {
        let lease = Self::wanted(inner, key, Place::OverMark(mark));
        let acquired = inner.store.acquire_over_mark(&lease.key, lease.token, inner.limits.lease, mark).await;
        lease.answered(acquired)
    }

    /// Takes one for each, or tells what stands in the way, in one trip.
    pub(crate) async fn acquire_many(
        inner: &Arc<Inner>,
        wanted: &[(&EntryKey, Place)],
    ) -> Result<Vec<Result<Result<Self, Obstacle>>>> {
        let leases: Vec<Self> = wanted.iter().map(|(key, place)| Self::wanted(inner, key, *place)).collect();
        let want = |(lease, (_, place)): (&Self, &(_, Place))| {
            let Self { key, token, .. } = lease;
            Want { key: Arc::clone(key), token: *token, place: *place }
        };
        let wants: Vec<Want> = leases.iter().zip(wanted).map(want).collect();
        // Dropped here: all of them are given back.
        match inner.store.acquire_many(&wants, inner.limits.lease).await {
            Ok(answers) => Ok(leases.into_iter().zip(answers).map(|(lease, answer)| lease.answered(answer)).collect()),
            Err(error) => {
                leases.into_iter().for_each(|lease| lease.unanswered(&error));
                Err(error)
            }
        }
    }

    fn wanted(inner: &Arc<Inner>, key: &EntryKey, place: Place) -> Self {
        let token = token(inner);
        // Made before the request: dropped while that is under way, the lease may be ours all the same.
        Self {
            inner: Arc::clone(inner),
            key: Arc::clone(&key.value_key),
            token: if matches!(place, Place::OverMark(_)) { token.unawaited() } else { token },
            over: place.over(),
            held: true,
        }
    }

    fn answered(mut self, acquired: Result<Acquired>) -> Result<Result<Self, Obstacle>> {
        match acquired {
            Ok(Acquired::Ours) => {
                self.inner.history.note(&self.key, What::LeaseTaken);
                Ok(Ok(self))
            }
            Ok(Acquired::Unawaited) => {
                self.token = self.token.unawaited();
                self.inner.history.note(&self.key, What::LeaseTaken);
                Ok(Ok(self))
            }
            Ok(Acquired::Found(Slot::Leased(_))) if sabotage::is(Guard::LeaseIsExclusive) => Ok(Ok(self)),
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

    /// An answer that did not come says nothing: the lease may be ours, and is given back in any case (R11).
    fn unanswered(mut self, error: &Error) {
        self.held = error.may_have_happened();
    }

    /// Drives `work`, and renews the lease while that goes on: at a third of its time, so that it
    /// does not end, and at half the staleness bound, since a run that may have been invalidated
    /// elsewhere is not joined for longer than that. Where the store does not answer, the run goes
    /// on for those who wait for it. `tell` is called with a key and what was learned of its lease.
    pub(crate) async fn keep<T>(&self, tell: &(dyn Fn(&str, Told) + Sync), work: impl Future<Output = T>) -> T {
        Self::keep_all(&self.inner, std::slice::from_ref(self), tell, work).await
    }

    /// The same for the leases of one run, renewed together.
    pub(crate) async fn keep_all<T>(
        inner: &Inner,
        leases: &[Self],
        tell: &(dyn Fn(&str, Told) + Sync),
        work: impl Future<Output = T>,
    ) -> T {
        let limit = inner.limits.lease;
        let pause = limit.mul_f64(1.0 / 3.0).min(inner.limits.max_staleness.mul_f64(0.5));
        let started = inner.clock.start();
        let renewal = async {
            let mut claims: Vec<Claim> = leases.iter().map(Self::claim).collect();
            // Counted from the start, so that a slow renewal does not push the next one back.
            for renewals in 1_u32.. {
                if claims.is_empty() {
                    break;
                }
                started.reaches(pause.saturating_mul(renewals)).await;
                let asked_at = inner.clock.boot();
                let renewed = match inner.store.renew_many(&claims, limit).await {
                    Ok(renewed) => renewed,
                    Err(error) => {
                        inner.store_failed(&error);
                        continue;
                    }
                };
                let mut answers = renewed.into_iter();
                claims.retain(|claim| match answers.next() {
                    Some(Ok(true)) => {
                        tell(&claim.key, Told::Stood(asked_at));
                        bump(&inner.events.count().renewals);
                        inner.history.note(&claim.key, What::LeaseRenewed);
                        true
                    }
                    // Lost: the fill will be refused and told then. Callers that come from now on start anew.
                    Some(Ok(false)) => {
                        inner.history.note(&claim.key, What::LeaseLost);
                        tell(&claim.key, Told::Lost);
                        false
                    }
                    Some(Err(error)) => {
                        inner.store_failed(&error);
                        !sabotage::is(Guard::FailedRenewalIsRepeated)
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

    fn claim(&self) -> Claim {
        Claim { key: Arc::clone(&self.key), token: self.token, over: self.over }
    }

    /// Stores the record if the lease is still ours. `track`: whoever asks keeps the value while no change of it is told.
    pub(crate) async fn fill(mut self, record: Bytes, expiry: Duration, track: bool) -> Result<Filled> {
        let fill = Fill { claim: self.claim(), record, expiry, track };
        let filled = self.inner.store.fill(&fill).await?;
        self.held = false;
        Ok(filled)
    }

    /// Stores a plain value if the lease is still ours, over exactly what stood there. The lease is the key beside it.
    pub(crate) async fn fill_plain(
        mut self,
        key: &str,
        over: Option<Bytes>,
        bytes: Bytes,
        expiry: Duration,
    ) -> Result<bool> {
        let lease = Arc::clone(&self.key);
        let fill = PlainFill { key, lease: &lease, token: self.token, over, bytes, expiry };
        let stored = self.inner.store.fill_plain(fill).await?;
        self.held = false;
        Ok(stored)
    }

    /// The same for each, in one trip.
    pub(crate) async fn fill_many(
        inner: &Inner,
        fills: Vec<(Self, Bytes, Duration, bool)>,
    ) -> Result<Vec<Result<Filled>>> {
        let fill = |(lease, record, expiry, track): &(Self, Bytes, Duration, bool)| Fill {
            claim: lease.claim(),
            record: record.clone(),
            expiry: *expiry,
            track: *track,
        };
        let filled = inner.store.fill_many(&fills.iter().map(fill).collect::<Vec<_>>()).await?;
        for ((lease, ..), _) in fills.into_iter().zip(&filled).filter(|(_, filled)| filled.is_ok()) {
            lease.forget();
        }
        Ok(filled)
    }

    /// Gives them back in one trip.
    pub(crate) async fn release_many(inner: &Inner, leases: Vec<Self>, end: End) -> Result<()> {
        if leases.is_empty() {
            return Ok(());
        }
        let claims: Vec<Claim> = leases.iter().map(Self::claim).collect();
        inner.store.release_many(&claims, end.unstored()).await?;
        leases.into_iter().for_each(Self::forget);
        Ok(())
    }

    /// There is nothing to give back any more.
    fn forget(mut self) {
        self.held = false;
    }

    /// Rewrites the first bytes of the record that the lease is beside, if both still stand.
    pub(crate) async fn rewrite_head(mut self, head: Bytes, expiry: Duration) -> Result<bool> {
        let Over::Record(fill_id) = self.over else { return self.release(End::Free).await.map(|()| false) };
        let rewritten = self.inner.store.rewrite_head(&self.key, self.token, fill_id, head, expiry).await?;
        self.held = false;
        Ok(rewritten)
    }

    /// Which record it is beside.
    pub(crate) fn over(&self) -> Over {
        self.over
    }

    /// Gives it back after a failed refresh: no process tries again for that long. Whether it was still ours, and so the record still stood.
    pub(crate) async fn throttle(mut self, throttle: Duration) -> Result<bool> {
        let stood = self.inner.store.throttle(&self.key, self.token, throttle).await?;
        self.held = false;
        Ok(stood)
    }

    /// Gives it back, so that the next caller need not wait for its end.
    pub(crate) async fn release(mut self, end: End) -> Result<()> {
        self.inner.store.release(&self.key, self.token, self.over, end.unstored()).await?;
        self.held = false;
        Ok(())
    }
}

/// Whether a lease beside the record of this key stands that this caller waits for. It is given back in its own key, and whoever waits
/// watches the record: so it is looked at once more after the watching began.
pub(crate) async fn is_awaited_beside(inner: &Inner, key: &str, is_refresh: bool) -> Result<bool> {
    Ok(match inner.store.read(&lease_key(key)).await? {
        Slot::Bytes(bytes) => bytes != THROTTLE_MARK.as_bytes(),
        // A refresh has to store, so it does wait.
        Slot::Unawaited(_) => is_refresh,
        _ => false,
    })
}

/// What a lease that is given back leaves for those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing: one of them takes the lease, and the others wait for that one.
    Free,
    /// A mark for a moment: the run ended and stored nothing, so each process runs at once (X7).
    Unstored,
}

impl End {
    fn unstored(self) -> Option<Duration> {
        (self == Self::Unstored && !sabotage::is(Guard::UnstoredLeavesMark)).then_some(UNSTORED_FOR)
    }
}

/// Keeps leases that are taken, or stored under, in many trips: outside of [`Lease::keep_all`], which is for the run between.
pub(crate) struct Renewals(Stopwatch);

impl Renewals {
    /// For leases that are young.
    pub(crate) fn start(inner: &Inner) -> Self {
        Self(inner.clock.start())
    }

    /// Renews all of these, where a third of a lease's time has passed since it did so last. `tell`
    /// is called with what comes with a lease and what was learned of it.
    pub(crate) async fn renew_when_due<'a>(
        &mut self,
        inner: &Inner,
        leases: impl Iterator<Item = (usize, &'a Lease)>,
        tell: impl Fn(usize, Told),
    ) {
        let limit = inner.limits.lease;
        if self.0.elapsed() < limit.mul_f64(1.0 / 3.0) {
            return;
        }
        let (of, claims): (Vec<usize>, Vec<Claim>) = leases.map(|(of, lease)| (of, lease.claim())).unzip();
        let asked_at = inner.clock.boot();
        self.0 = inner.clock.start();
        let renewed = match inner.store.renew_many(&claims, limit).await {
            Ok(renewed) => renewed,
            Err(error) => return inner.store_failed(&error),
        };
        for ((claim, of), renewed) in claims.iter().zip(of).zip(renewed) {
            match renewed {
                Ok(true) => {
                    tell(of, Told::Stood(asked_at));
                    bump(&inner.events.count().renewals);
                    inner.history.note(&claim.key, What::LeaseRenewed);
                }
                // The fill will be refused and told then. Callers that come from now on start anew.
                Ok(false) => {
                    inner.history.note(&claim.key, What::LeaseLost);
                    tell(of, Told::Lost);
                }
                Err(error) => inner.store_failed(&error),
            }
        }
    }
}

/// A new token. Without its guard it is the client's, as in libraries that leave it at that.
fn token(inner: &Arc<Inner>) -> Token {
    if sabotage::is(Guard::TokenOfAttempt) {
        return Token::from_bits(Arc::as_ptr(inner).addr() as u128);
    }
    Token::random()
}

/// A caller that is dropped must not make the next one wait for the lease's end.
impl Drop for Lease {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        // From anywhere, also outside a runtime. After the shutdown the lease runs out by itself.
        self.inner.store.later(Operation::Release(self.claim(), self.inner.limits.lease));
    }
}
