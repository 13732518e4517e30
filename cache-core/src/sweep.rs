//! [`Cache::sweep`]: frees the memory of records that were invalidated.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::Cache;
use crate::error::Result;
use crate::store::sweep::{Heads, Suspect, VersionState};

/// A position from which a sweep continues; the default is the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepCursor(u64);

/// What one call of [`Cache::sweep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Swept {
    /// Records of this namespace that were checked.
    pub looked_at: u64,
    /// Checked records that could no longer be served, and that were removed.
    pub removed: u64,
    /// The position to continue from; `None` if all records were checked.
    pub next: Option<SweepCursor>,
}

impl Cache {
    /// Checks records of this namespace and removes those that an invalidation of a tag, a function
    /// or everything has ended.
    ///
    /// Such records are never served again, but they stay in the store until their ttl: an
    /// invalidation writes a version and does not look for records. Nothing sweeps Redis
    /// automatically. The embedded store sweeps itself, and a call only makes it happen sooner.
    ///
    /// One call runs up to `steps` steps. On Redis, each step is one `SCAN` over 250 keys of the
    /// server, of any namespace, one read of the first bytes of each record found, one read of
    /// versions, and one removal by comparison: a record that was stored in the meantime stays.
    /// Pause between calls as your server needs it. The server counts a check as a use of the
    /// record.
    ///
    /// ```
    /// # async fn example(cache: &cache_core::Cache) -> Result<(), cache_core::Error> {
    /// let mut from = Some(cache_core::sweep::SweepCursor::default());
    /// while let Some(cursor) = from {
    ///     from = cache.sweep(cursor, 10).await?.next;
    ///     tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Failures of the store. Removed records stay removed, and a call from the same cursor
    /// continues.
    pub async fn sweep(&self, from: SweepCursor, steps: u32) -> Result<Swept> {
        let prefix = format!("{}:", self.0.namespace);
        let mut swept = Swept { next: Some(from), ..Swept::default() };
        for _ in 0..steps {
            let Some(SweepCursor(from)) = swept.next else { break };
            let (heads, next) = self.0.store.heads(&prefix, from).await?;
            swept.looked_at = swept.looked_at.saturating_add(heads.len() as u64);
            swept.removed = swept.removed.saturating_add(self.remove_dead(heads).await?);
            swept.next = (next != 0).then_some(SweepCursor(next));
        }
        Ok(swept)
    }

    async fn remove_dead(&self, heads: Heads) -> Result<u64> {
        let suspects: Vec<_> =
            heads.into_iter().filter_map(|head| Suspect::of(&head.0, &head.1).map(|suspect| (head, suspect))).collect();
        let mut versions: Vec<Arc<str>> =
            suspects.iter().flat_map(|(_, suspect)| &suspect.versions).map(Arc::clone).collect();
        versions.sort_unstable();
        versions.dedup();
        // Read after the heads: a version that differs from a record's was renewed since the record
        // was stored.
        let found = self.0.store.current(&versions).await?;
        let found: HashMap<Arc<str>, VersionState> = versions.into_iter().zip(found).collect();
        let is_dead = |suspect: &Suspect| {
            let current = |version| found.get(version).copied().unwrap_or(VersionState::Unknown);
            suspect.is_dead(&suspect.versions.iter().map(current).collect::<Vec<_>>())
        };
        let dead: Heads = suspects.into_iter().filter(|(_, suspect)| is_dead(suspect)).map(|(head, _)| head).collect();
        self.0.store.remove_heads(&dead).await
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers")]
mod tests {
    use std::convert::Infallible;
    use std::ops::Range;

    use super::*;
    use crate::key::Key;
    use crate::options::EntryOptions;

    const KEYS: u32 = 1500;

    /// Computes values of a kilobyte, with this tag.
    async fn fill(cache: &Cache, name: &'static str, keys: Range<u32>) {
        let options = EntryOptions::new().tags([name]);
        for id in keys {
            let compute = || async { Ok::<_, Infallible>(vec![1_u8; 1000]) };
            cache.get_or_compute(Key::new(name).part(&id), &options, compute).await.unwrap();
        }
    }

    fn embedded(limit_bytes: usize) -> Cache {
        Cache::builder().memory_limit_bytes(limit_bytes).local_limit_bytes(0).in_memory()
    }

    async fn sweep(cache: &Cache) -> Swept {
        let (mut all, mut from) = (Swept::default(), Some(SweepCursor::default()));
        while let Some(cursor) = from {
            let swept = cache.sweep(cursor, 3).await.unwrap();
            (all.looked_at, all.removed) = (all.looked_at + swept.looked_at, all.removed + swept.removed);
            from = swept.next;
        }
        all
    }

    #[tokio::test]
    // C6
    async fn cycles_that_end_with_a_clear_take_the_room_of_two() {
        // Of about 1,300 bytes each.
        let cache = embedded(2 * KEYS as usize * 1400);
        for cycle in 0..6 {
            fill(&cache, "cycle", cycle * KEYS..(cycle + 1) * KEYS).await;
            cache.clear().await.unwrap();
        }
        let stats = cache.stats();
        assert_eq!((stats.computes, stats.evicted), (6 * u64::from(KEYS), 0));
    }

    #[tokio::test]
    // C6
    async fn entries_of_an_invalidated_tag_are_evicted_first() {
        let cache = embedded(KEYS as usize * 1400);
        fill(&cache, "used least recently", 0..200).await;
        fill(&cache, "ended", 0..KEYS - 300).await;
        cache.invalidate_tag("ended").await.unwrap();
        cache.plain().set("large", &"x".repeat(1_000_000), None).await.unwrap();
        assert_eq!(cache.stats().evicted, 0);
        fill(&cache, "used least recently", 0..200).await;
        assert_eq!(cache.stats().computes, u64::from(KEYS - 100), "they are still there");
    }

    #[tokio::test]
    // C6
    async fn a_sweep_removes_what_was_ended_and_nothing_else() {
        let cache = embedded(usize::MAX);
        fill(&cache, "stays", 0..300).await;
        fill(&cache, "ended", 0..300).await;
        assert_eq!(sweep(&cache).await, Swept { looked_at: 600, removed: 0, next: None });
        cache.invalidate_tag("ended").await.unwrap();
        let swept = sweep(&cache).await;
        // The write of the version has checked some records itself.
        assert!(swept.removed > 280 && swept.removed + 300 == swept.looked_at, "{swept:?}");
        assert_eq!(sweep(&cache).await, Swept { looked_at: 300, removed: 0, next: None });
        fill(&cache, "stays", 0..300).await;
        assert_eq!(cache.stats().computes, 600);
    }
}
