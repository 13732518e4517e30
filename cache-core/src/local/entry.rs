//! An entry of the tier, and how the table finds it.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use papaya::Equivalent;

use super::eviction::{MOST_USES, QueueId, Ticket};
use super::key::{LocalKey, LocalKeyRef, NumberKey};
use super::{Hit, Now, let_go};
use crate::mutants::{self, Invariant};
use crate::value::Erased;
use crate::value::freshness::is_ahead;
use crate::versions::Dependencies;

/// A flag next to the number of uses: there was a use since [`LocalEntry::take_hit`].
const HIT: u8 = 0x80;

/// A value with its key, and its times on the coarse clock.
///
/// Small, since most of the cost of a hit is the memory it waits for: milliseconds in 32 bits are
/// 49 days, and a value that lasts longer is read again then.
///
/// The fields that a hit reads come first, and are in one cache line if the key is a number.
#[repr(C)]
pub(super) struct LocalEntry {
    /// Until when it is served without any further check.
    pub(super) until: u64,
    pub(super) value: Erased,
    /// The versions it was stored under.
    pub(super) under: Dependencies,
    pub(super) key: LocalKey,
    pub(super) fill_id: u64,
    /// How long after `until` it is fresh, and chance decides on a refresh.
    pub(super) chancy_ms: u32,
    /// How long after `until` it may be served at all.
    pub(super) served_ms: u32,
    pub(super) weight: u32,
    /// Hash of the key. More bits would not distinguish more keys than there is room for.
    pub(super) hash: u32,
    /// The tier's epoch when this was inserted. In another epoch the entry is dead: never served,
    /// and removed in its turn.
    pub(super) epoch: u32,
    /// The cost of the compute, times beta.
    pub(super) ahead: AheadMs,
    /// Which queue of the order of eviction it is in. Guarded by the lock of that order.
    pub(super) in_main: AtomicU8,
    /// How often it was used since the last check, up to [`MOST_USES`]; and [`HIT`].
    pub(super) uses: AtomicU8,
}

/// Milliseconds for a random draw: the upper half of an `f32`, which is exact to one part in 128.
#[derive(Clone, Copy)]
pub(super) struct AheadMs(u16);

impl AheadMs {
    pub(super) fn new(ms: f64) -> Self {
        Self(((ms as f32).to_bits() >> 16) as u16)
    }

    fn get(self) -> f64 {
        f32::from_bits(u32::from(self.0) << 16).into()
    }
}

impl LocalEntry {
    /// Returns the value if it may be served without any further check.
    ///
    /// An entry whose versions are not known to be current stays: after a reconnect they may turn
    /// out to be.
    // Not inlined: in the caller, the lookup and this compete for registers, which took a tenth
    // longer.
    #[inline(never)]
    pub(super) fn serve_plain<T>(
        found: Option<&Self>,
        trusted_until: u64,
        now: &Now,
        take: impl FnOnce(&Erased) -> Option<T>,
    ) -> Option<T> {
        let kept = found?;
        // First: counting a reference is what a hit waits for longest, and the other checks,
        // including the clock, can run meanwhile.
        let value = take(&kept.value)?;
        if !kept.is_of(now.epoch()) {
            return None;
        }
        if !kept.under.hold() && !mutants::removed(Invariant::VersionEndsLocal) {
            return None;
        }
        kept.count_use();
        let now = now.clock.coarse();
        (now < kept.until && now < trusted_until).then_some(value)
    }

    /// Returns the value if it may be served.
    pub(super) fn serve<T>(&self, now: u64, epoch: u32, take: impl FnOnce(&Erased) -> Option<T>) -> Option<Hit<T>> {
        if !self.is_of(epoch) || (!self.under.hold() && !mutants::removed(Invariant::VersionEndsLocal)) {
            return None;
        }
        let due = now >= self.until && self.is_due(now, crate::random::fraction)?;
        let value = take(&self.value)?;
        self.count_use();
        Some(if due { Hit::Due(value, self.fill_id) } else { Hit::Fresh(value) })
    }

    #[inline(always)]
    fn count_use(&self) {
        let uses = self.uses.load(Ordering::Relaxed);
        if uses != HIT | MOST_USES {
            // Two threads may count one use. The count is a hint, and a locked addition would be a
            // third of a hit.
            self.uses.store(HIT | (uses & !HIT).saturating_add(1).min(MOST_USES), Ordering::Relaxed);
        }
    }

    /// Returns how often it was used since the last check.
    pub(super) fn uses(&self) -> u8 {
        self.uses.load(Ordering::Relaxed) & !HIT
    }

    /// Returns whether it was used since the last call.
    pub(super) fn take_hit(&self) -> bool {
        let uses = self.uses.load(Ordering::Relaxed);
        if uses & HIT != 0 {
            // A concurrent use may be lost; the next one is counted.
            self.uses.store(uses & !HIT, Ordering::Relaxed);
        }
        uses & HIT != 0
    }

    /// Returns whether a value past `until` should be refreshed; `None` if it may not be served any
    /// more.
    pub(super) fn is_due(&self, now: u64, random: impl FnOnce() -> f64) -> Option<bool> {
        let since = now.saturating_sub(self.until);
        if since >= self.served_ms.into() {
            return None;
        }
        let left = u64::from(self.chancy_ms).saturating_sub(since);
        Some(left == 0 || is_ahead(self.ahead.get(), Duration::from_millis(left), random()))
    }

    /// Returns whether it was inserted since the tier was last emptied.
    #[inline(always)]
    pub(super) fn is_of(&self, epoch: u32) -> bool {
        self.epoch == epoch
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight.into()
    }

    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.hash)
    }

    pub(super) fn place(&self) -> QueueId {
        if self.in_main.load(Ordering::Relaxed) == 0 { QueueId::Small } else { QueueId::Main }
    }

    pub(super) fn stays(&self, uses: u8) {
        self.in_main.store(1, Ordering::Relaxed);
        self.uses.store(self.uses.load(Ordering::Relaxed) & HIT | uses, Ordering::Relaxed);
    }
}

impl Drop for LocalEntry {
    fn drop(&mut self) {
        let_go::later(&mut self.value);
    }
}

impl PartialEq for LocalEntry {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.key == other.key
    }
}

impl Eq for LocalEntry {}

impl Hash for LocalEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash);
    }
}

/// A key to look for. The table's search is compiled for each kind of key.
pub(super) struct Look<K> {
    pub(super) hash: u32,
    pub(super) key: K,
}

impl Equivalent<LocalEntry> for Look<LocalKeyRef<'_>> {
    #[inline(always)]
    fn equivalent(&self, kept: &LocalEntry) -> bool {
        self.key.is(&kept.key)
    }
}

impl Equivalent<LocalEntry> for Look<NumberKey<'_>> {
    #[inline(always)]
    fn equivalent(&self, kept: &LocalEntry) -> bool {
        self.key.is(&kept.key)
    }
}

impl<K> Hash for Look<K> {
    #[inline(always)]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash);
    }
}

/// Matches exactly this entry, and no other with its hash.
pub(super) struct This<'a>(pub(super) &'a LocalEntry);

impl Equivalent<LocalEntry> for This<'_> {
    fn equivalent(&self, kept: &LocalEntry) -> bool {
        std::ptr::eq(self.0, kept)
    }
}

impl Hash for This<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Matches an entry of this epoch that a ticket of this queue may represent.
pub(super) struct Candidate(pub(super) Ticket, pub(super) QueueId, pub(super) u32);

impl Equivalent<LocalEntry> for Candidate {
    fn equivalent(&self, kept: &LocalEntry) -> bool {
        self.0 == kept.ticket() && self.1 == kept.place() && kept.is_of(self.2)
    }
}

impl Hash for Candidate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.0.0);
    }
}

/// Matches an entry of an earlier epoch that a ticket may represent.
pub(super) struct Dead(pub(super) Ticket, pub(super) u32);

impl Equivalent<LocalEntry> for Dead {
    fn equivalent(&self, kept: &LocalEntry) -> bool {
        self.0 == kept.ticket() && !kept.is_of(self.1)
    }
}

impl Hash for Dead {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.0.0);
    }
}

/// Keys carry their own hash.
pub(super) type Hashed = BuildHasherDefault<Carried>;

#[derive(Default)]
pub(super) struct Carried(u64);

impl Hasher for Carried {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used, since keys write one number only.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[inline(always)]
    fn write_u32(&mut self, hash: u32) {
        // The table takes a slot from the lowest bits and a tag from the highest seven: they
        // overlap only beyond 2^25 slots.
        self.0 = u64::from(hash) | (u64::from(hash) << 32);
    }
}

const _: () = assert!(size_of::<LocalEntry>() <= 120, "with what the allocator adds, two cache lines");
