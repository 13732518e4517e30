//! The consistency meter: is what L1 serves what the store holds? Off unless it is asked for.
//!
//! ```text
//! a hit in L1, sampled ─> read the record's fill id and its versions, untracked ─ the same ─> a sample
//!                                                   └ not the same ─> wait for max_staleness
//!                                                                        ├ L1 serves it no more ─> a sample
//!                                                                        └ it does ─> a sample, stale: an event
//! ```
//!
//! Invariant: what is reported was replaced in the store before the answer of the read, and is served longer than `max_staleness` after
//! it; a push that is under way is never reported. Nothing here mends what it finds: reads are not tracked, and L1 is not touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::try_join_all;

use crate::cache::Inner;
use crate::entry::EntryKey;
use crate::error::Result;
use crate::events::{Event, bump};
use crate::local::Inspected;
use crate::store::Version;
use crate::versions::{Dependencies, Dependency};

/// Samples under way at the same time. A hit that comes while there are that many is not sampled.
const MOST: usize = 64;

/// The meter of one cache.
#[derive(Debug)]
pub(crate) struct Meter {
    share: f64,
    under_way: Arc<AtomicUsize>,
}

/// The place of one sample among those under way.
struct Place(Arc<AtomicUsize>);

impl Meter {
    /// `None`: no hit is sampled.
    pub(crate) fn new(share: f64) -> Option<Self> {
        (share > 0.0).then(|| Self { share, under_way: Arc::default() })
    }

    /// Samples this hit, if the meter is on and chance says so.
    pub(crate) fn hit(inner: &Arc<Inner>, key: &EntryKey) {
        Self::hit_of(inner, || key.clone());
    }

    /// The same where the key is not at hand.
    pub(crate) fn hit_of(inner: &Arc<Inner>, key: impl FnOnce() -> EntryKey) {
        if let Some(meter) = &inner.meter
            && crate::random::fraction() < meter.share
            && let Some(place) = meter.place()
        {
            sample(inner, key(), place);
        }
    }

    fn place(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.under_way));
        // Dropped where it is one too many.
        (self.under_way.fetch_add(1, Ordering::AcqRel) < MOST).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Compares what L1 serves under a key with the store, in the background.
fn sample(inner: &Arc<Inner>, key: EntryKey, place: Place) {
    let owned = Arc::clone(inner);
    // Without a runtime, and after the shutdown, nothing is sampled.
    let _spawned = inner.background.service(async move {
        let _place = place;
        let EntryKey { value_key, name, .. } = key;
        match compare(&owned, &value_key).await {
            Ok(Some(Verdict::Current)) => bump(&owned.events.count().meter_samples),
            Ok(Some(Verdict::Stale(after))) => {
                bump(&owned.events.count().meter_samples);
                owned.events.emit(Event::StaleBeyondBound { name, after });
            }
            Ok(None) => {}
            Err(error) => owned.store_failed(&error),
        }
    });
}

/// What a sample comes to.
enum Verdict {
    Current,
    /// Served that long after it was replaced, at least.
    Stale(Duration),
}

/// `None`: L1 does not serve it any more, so there is nothing to compare.
async fn compare(inner: &Arc<Inner>, key: &str) -> Result<Option<Verdict>> {
    let Some(Inspected { fill_id, under, .. }) = served(inner, key) else { return Ok(None) };
    let known: Option<Vec<Version>> = under.iter().map(Dependency::version).collect();
    let Some(known) = known else { return Ok(None) };
    if inner.store.holds(key, fill_id).await? && versions(inner, &under).await? == known {
        return Ok(Some(Verdict::Current));
    }
    // Replaced before this, by however little.
    let answered = inner.clock.start();
    answered.reaches(inner.limits.max_staleness).await;
    let still = served(inner, key).is_some_and(|now| now.fill_id == fill_id);
    Ok(Some(if still { Verdict::Stale(answered.elapsed()) } else { Verdict::Current }))
}

/// What L1 would serve.
fn served(inner: &Inner, key: &str) -> Option<Inspected> {
    inner.local.as_ref()?.inspect(key).filter(Inspected::is_served)
}

/// Those that stand in the store.
async fn versions(inner: &Inner, under: &Dependencies) -> Result<Vec<Version>> {
    let found = try_join_all(under.iter().map(|on| inner.store.load(on.key()))).await?;
    Ok(found.into_iter().flatten().filter_map(|(bytes, _)| Version::of(&bytes)).collect())
}
