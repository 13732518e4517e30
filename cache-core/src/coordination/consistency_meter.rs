//! The consistency meter: measures whether L1 serves what the store holds. Off by default.
//!
//! ```text
//! a hit in L1, sampled ─> read the record's fill id and versions, untracked ─ the same ─> a sample
//!                           └ not the same ─> wait for max_staleness
//!                                                ├ L1 no longer serves it ─> a sample
//!                                                └ it does ─> a sample, stale: an event
//! ```
//!
//! Invariant: a reported value was replaced in the store before the answer of the read, and is
//! served longer than `max_staleness` after it. A push on its way is never reported. The meter
//! repairs nothing: its reads are not tracked, and L1 is not touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::try_join_all;

use crate::background::Background;
use crate::clock::Clock;
use crate::error::Result;
use crate::key::EntryKey;
use crate::local::{Inspected, Local};
use crate::observe::events::{Event, Events, bump};
use crate::store::{Store, Version};
use crate::versions::{Dependencies, Dependency};

/// The maximum number of concurrent samples. A hit beyond that is not sampled.
const MOST: usize = 64;

/// The meter of one cache.
pub(crate) struct Meter {
    share: f64,
    under_way: Arc<AtomicUsize>,
    background: Arc<Background>,
    tiers: Arc<Tiers>,
}

/// The two tiers that are compared.
pub(crate) struct Tiers {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) local: Option<Arc<Local>>,
    pub(crate) events: Events,
    pub(crate) clock: Clock,
    pub(crate) max_staleness: Duration,
}

/// A sample's slot among the concurrent ones.
struct SampleSlot(Arc<AtomicUsize>);

impl Meter {
    /// Makes a meter that samples this share of the hits. `None`: no hit is sampled.
    pub(crate) fn new(share: f64, background: Arc<Background>, tiers: Tiers) -> Option<Self> {
        (share > 0.0).then(|| Self { share, under_way: Arc::default(), background, tiers: Arc::new(tiers) })
    }

    /// Samples this hit at random. The key is only made for a sample.
    pub(crate) fn hit(&self, key: impl FnOnce() -> EntryKey) {
        if crate::random::fraction() < self.share
            && let Some(place) = self.place()
        {
            self.sample(key(), place);
        }
    }

    /// Compares what L1 serves under a key with the store, in the background.
    fn sample(&self, key: EntryKey, place: SampleSlot) {
        let tiers = Arc::clone(&self.tiers);
        // Without a runtime, and after the shutdown, nothing is sampled.
        let _spawned = self.background.service(async move {
            let _place = place;
            let EntryKey { value_key, name, .. } = key;
            match tiers.compare(&value_key).await {
                Ok(Some(Verdict::Current)) => bump(&tiers.events.count().meter_samples),
                Ok(Some(Verdict::Stale(after))) => {
                    bump(&tiers.events.count().meter_samples);
                    tiers.events.emit(Event::StaleBeyondBound { name, after });
                }
                Ok(None) => {}
                Err(error) => tiers.events.store_failed(&error, tiers.store.is_available()),
            }
        });
    }

    fn place(&self) -> Option<SampleSlot> {
        let place = SampleSlot(Arc::clone(&self.under_way));
        // Dropped here if there are too many.
        (self.under_way.fetch_add(1, Ordering::AcqRel) < MOST).then_some(place)
    }
}

impl Drop for SampleSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The result of a sample.
enum Verdict {
    Current,
    /// Served for at least this long after it was replaced.
    Stale(Duration),
}

impl Tiers {
    /// Compares one key. `None`: L1 no longer serves it, so there is nothing to compare.
    async fn compare(&self, key: &str) -> Result<Option<Verdict>> {
        let Some(Inspected { fill_id, under, .. }) = self.served(key) else { return Ok(None) };
        let known: Option<Vec<Version>> = under.iter().map(Dependency::version).collect();
        let Some(known) = known else { return Ok(None) };
        if self.store.holds(key, fill_id).await? && self.versions(&under).await? == known {
            return Ok(Some(Verdict::Current));
        }
        // The value was replaced before this moment.
        let answered = self.clock.start();
        answered.reaches(self.max_staleness).await;
        let still = self.served(key).is_some_and(|now| now.fill_id == fill_id);
        Ok(Some(if still { Verdict::Stale(answered.elapsed()) } else { Verdict::Current }))
    }

    /// Returns what L1 would serve.
    fn served(&self, key: &str) -> Option<Inspected> {
        self.local.as_ref()?.inspect(key).filter(Inspected::is_served)
    }

    /// Returns the versions in the store.
    async fn versions(&self, under: &Dependencies) -> Result<Vec<Version>> {
        let found = try_join_all(under.iter().map(|on| self.store.load(on.key()))).await?;
        Ok(found.into_iter().flatten().filter_map(|(bytes, _)| Version::of(&bytes)).collect())
    }
}
