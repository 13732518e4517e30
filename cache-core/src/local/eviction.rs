//! Eviction when the tier is full: S3-FIFO (Yang et al., "FIFO queues are all you need for cache
//! eviction", SOSP 2023).
//!
//! ```text
//! new ──> small (a twentieth) ── used ──> main ──┐ again, as often as it was used
//!            │ else                       └──────┘
//!            └─> evicted, its hash among the ghosts ── filled again ──> main
//! ```
//!
//! Hits change nothing here: an entry counts its own uses, which are checked when it reaches the
//! end of its queue. So entries that are read once leave by the small queue, and hits take no lock.
//!
//! Invariant: `small.bytes + main.bytes` is the weight of the entries in the table that may be
//! served, `dead_bytes` the weight of those that are dead since everything was dropped at once. A
//! queue's tickets are those of its entries and of some that have left the table otherwise, at most
//! as many plus a few.

use std::collections::{HashSet, VecDeque};

/// The upper limit of an entry's use count.
pub(super) const MOST_USES: u8 = 3;
/// An entry of the small queue with this many uses moves to the main queue.
///
/// In the paper it is 2. On keys by Zipf's law with a scan in between, 1 and a smaller queue give
/// two more hits in a hundred, as many as quick_cache has.
const USES_TO_STAY: u8 = 1;
/// The small queue's fraction of the limit; in the paper a tenth.
const SMALL_PART: u64 = 20;
/// The fraction of the limit that a single entry may take.
const LARGEST_PART: u64 = 8;
/// Number of tickets without an entry that is too small for a cleanup.
const FEW: usize = 64;

/// In which queue an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueId {
    Small,
    Main,
}

/// Represents an entry in its queue: the hash of its key.
///
/// If an entry returns before its old ticket has left the queue, or if two entries have the same
/// hash, an entry is judged at the ticket of the other: earlier or later than otherwise. One entry
/// is never mistaken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ticket(pub(super) u32);

/// The decision on an entry at the end of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It moves to the main queue, with this number of uses.
    Stays(u8),
    Goes,
}

#[derive(Default)]
struct Queue {
    tickets: VecDeque<Ticket>,
    bytes: u64,
    /// How many of the tickets have an entry.
    entries: usize,
}

pub(super) struct Queues {
    limit: u64,
    small: Queue,
    main: Queue,
    /// Hashes of entries that left by the small queue, as many as there are entries in the main
    /// one.
    ghosts: VecDeque<Ticket>,
    haunting: HashSet<Ticket>,
    /// The epoch of these queues.
    pub(super) epoch: u32,
    /// Queues of earlier epochs, whose entries are not removed from the table yet.
    dead: VecDeque<Buried>,
    dead_bytes: u64,
}

/// The queues of an epoch that has ended. The ghosts are kept, too, so that ending an epoch frees
/// nothing.
struct Buried {
    small: VecDeque<Ticket>,
    main: VecDeque<Ticket>,
    _ghosts: (VecDeque<Ticket>, HashSet<Ticket>),
}

impl Queues {
    pub(super) fn new(limit: u64) -> Self {
        let (small, main) = (Queue::default(), Queue::default());
        let (ghosts, haunting, dead) = (VecDeque::new(), HashSet::new(), VecDeque::new());
        Self { limit, small, main, ghosts, haunting, epoch: 0, dead, dead_bytes: 0 }
    }

    /// Marks all entries in the table as dead. Moves the queues, whatever their length.
    pub(super) fn begin_epoch(&mut self, epoch: u32) {
        self.epoch = epoch;
        self.dead_bytes = self.dead_bytes.saturating_add(self.bytes());
        let (small, main) = (std::mem::take(&mut self.small), std::mem::take(&mut self.main));
        let _ghosts = (std::mem::take(&mut self.ghosts), std::mem::take(&mut self.haunting));
        if !small.tickets.is_empty() || !main.tickets.is_empty() {
            self.dead.push_back(Buried { small: small.tickets, main: main.tickets, _ghosts });
        }
    }

    /// Returns the ticket of the next dead entries to remove.
    pub(super) fn dead(&mut self) -> Option<Ticket> {
        loop {
            let buried = self.dead.front_mut()?;
            if let Some(ticket) = buried.small.pop_front().or_else(|| buried.main.pop_front()) {
                return Some(ticket);
            }
            self.dead.pop_front();
        }
    }

    /// Records that a dead entry was removed from the table.
    pub(super) fn dead_leaves(&mut self, weight: u64) {
        self.dead_bytes = self.dead_bytes.saturating_sub(weight);
    }

    /// Returns whether the entries, alive and dead, exceed the limit.
    pub(super) fn is_over(&self) -> bool {
        self.bytes().saturating_add(self.dead_bytes) > self.limit
    }

    #[cfg(feature = "testing")]
    pub(super) fn weight(&self) -> (u64, u64) {
        (self.bytes().saturating_add(self.dead_bytes), self.limit)
    }

    /// Returns the weight above which an entry is not kept.
    pub(super) fn largest(&self) -> u64 {
        self.limit / LARGEST_PART
    }

    pub(super) fn bytes(&self) -> u64 {
        self.small.bytes.saturating_add(self.main.bytes)
    }

    /// Records that an entry was put into the table.
    pub(super) fn enter(&mut self, ticket: Ticket, weight: u64) -> QueueId {
        // Its ticket stays in the queue of ghosts and leaves that in its turn.
        let place = if self.haunting.remove(&ticket) { QueueId::Main } else { QueueId::Small };
        self.queue(place).push(ticket, weight);
        place
    }

    /// Records that an entry replaced the one of the same key. It keeps the ticket.
    pub(super) fn replace(&mut self, place: QueueId, old_weight: u64, weight: u64) {
        let queue = self.queue(place);
        queue.bytes = queue.bytes.saturating_sub(old_weight).saturating_add(weight);
    }

    /// Records that an entry was removed from the table. Its ticket stays in the queue.
    pub(super) fn leave(&mut self, place: QueueId, weight: u64) {
        self.queue(place).take(weight);
    }

    /// Returns the ticket of the next entry to judge while the limit is exceeded. Dead entries are
    /// removed first.
    pub(super) fn surplus(&mut self) -> Option<(Ticket, QueueId)> {
        if self.bytes() <= self.limit {
            return None;
        }
        let place = if self.small.bytes > self.limit / SMALL_PART { QueueId::Small } else { QueueId::Main };
        let first = self.queue(place).tickets.pop_front().map(|ticket| (ticket, place));
        first.or_else(|| {
            let place = if place == QueueId::Small { QueueId::Main } else { QueueId::Small };
            Some((self.queue(place).tickets.pop_front()?, place))
        })
    }

    /// Decides on an entry at the end of its queue, whose ticket has just been taken. The caller
    /// removes an evicted entry from the table.
    pub(super) fn judge(&mut self, ticket: Ticket, place: QueueId, uses: u8, weight: u64) -> Verdict {
        self.queue(place).take(weight);
        let left = match place {
            QueueId::Small if uses >= USES_TO_STAY => Some(0),
            QueueId::Main => uses.checked_sub(1),
            QueueId::Small => None,
        };
        match left {
            Some(uses) => {
                self.main.push(ticket, weight);
                Verdict::Stays(uses)
            }
            None => {
                if place == QueueId::Small {
                    self.haunt(ticket);
                }
                Verdict::Goes
            }
        }
    }

    /// Drops tickets without an entry if there are many. `stands` asks the table.
    pub(super) fn tidy(&mut self, stands: impl Fn(Ticket, QueueId) -> bool) {
        for place in [QueueId::Small, QueueId::Main] {
            let queue = self.queue(place);
            if queue.tickets.len() > queue.entries.saturating_mul(2).saturating_add(FEW) {
                // One ticket is enough for an entry that left and came back.
                let mut seen = HashSet::with_capacity(queue.entries);
                queue.tickets.retain(|ticket| stands(*ticket, place) && seen.insert(*ticket));
            }
        }
    }

    /// Puts a ticket back. It may represent several entries whose keys have the same hash.
    pub(super) fn again(&mut self, ticket: Ticket, place: QueueId) {
        self.queue(place).tickets.push_back(ticket);
    }

    fn haunt(&mut self, ticket: Ticket) {
        if self.haunting.insert(ticket) {
            self.ghosts.push_back(ticket);
        }
        while self.ghosts.len() > self.main.entries.max(FEW) {
            let Some(oldest) = self.ghosts.pop_front() else { return };
            self.haunting.remove(&oldest);
        }
    }

    fn queue(&mut self, place: QueueId) -> &mut Queue {
        match place {
            QueueId::Small => &mut self.small,
            QueueId::Main => &mut self.main,
        }
    }
}

impl Queue {
    fn push(&mut self, ticket: Ticket, weight: u64) {
        self.tickets.push_back(ticket);
        self.bytes = self.bytes.saturating_add(weight);
        self.entries = self.entries.saturating_add(1);
    }

    fn take(&mut self, weight: u64) {
        self.bytes = self.bytes.saturating_sub(weight);
        self.entries = self.entries.saturating_sub(1);
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "small numbers")]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const LIMIT: u64 = 1000;

    /// A minimal table around the order under test.
    struct Table {
        queues: Queues,
        entries: HashMap<u32, Entry>,
    }

    struct Entry {
        place: QueueId,
        uses: u8,
        weight: u64,
    }

    impl Table {
        fn new() -> Self {
            Self { queues: Queues::new(LIMIT), entries: HashMap::new() }
        }

        fn put(&mut self, hash: u32, weight: u64) {
            match self.entries.get_mut(&hash) {
                Some(old) => {
                    self.queues.replace(old.place, old.weight, weight);
                    old.weight = weight;
                }
                None => {
                    let place = self.queues.enter(Ticket(hash), weight);
                    self.entries.insert(hash, Entry { place, uses: 0, weight });
                }
            }
            while let Some((ticket, place)) = self.queues.surplus() {
                let entry = self.entries.get_mut(&ticket.0).filter(|entry| entry.place == place);
                let Some(entry) = entry else { continue };
                match self.queues.judge(ticket, place, entry.uses, entry.weight) {
                    Verdict::Stays(uses) => (entry.place, entry.uses) = (QueueId::Main, uses),
                    Verdict::Goes => drop(self.entries.remove(&ticket.0)),
                }
            }
            let entries = &self.entries;
            self.queues.tidy(|ticket, place| entries.get(&ticket.0).is_some_and(|entry| entry.place == place));
        }

        fn remove(&mut self, hash: u32) {
            if let Some(entry) = self.entries.remove(&hash) {
                self.queues.leave(entry.place, entry.weight);
            }
        }

        fn hit(&mut self, hash: u32) -> bool {
            let entry = self.entries.get_mut(&hash);
            entry.map(|entry| entry.uses = (entry.uses + 1).min(MOST_USES)).is_some()
        }
    }

    fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            // A linear congruential generator with Knuth's constants: the same draws in every run.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    #[test]
    // T3
    fn the_counted_bytes_match_the_entries_and_stay_within_the_limit() {
        let (mut table, mut draw) = (Table::new(), draws(1));
        for step in 0..200_000 {
            let hash = draw(300) as u32;
            match draw(10) {
                0..5 => drop(table.hit(hash)),
                5..9 => table.put(hash, 1 + draw(LIMIT / LARGEST_PART)),
                _ if draw(2000) == 0 => {
                    let weight = table.queues.bytes();
                    table.queues.begin_epoch(table.queues.epoch + 1);
                    assert_eq!(table.queues.bytes(), 0);
                    while table.queues.dead().is_some() {}
                    table.queues.dead_leaves(weight);
                    table.entries.clear();
                    assert!(table.queues.dead.is_empty() && table.queues.dead_bytes == 0);
                }
                _ => table.remove(hash),
            }
            let weight: u64 = table.entries.values().map(|entry| entry.weight).sum();
            assert_eq!(table.queues.bytes(), weight, "step {step}");
            assert!(weight <= LIMIT, "step {step}");
            for (place, queue) in [(QueueId::Small, &table.queues.small), (QueueId::Main, &table.queues.main)] {
                let entries = table.entries.values().filter(|entry| entry.place == place).count();
                assert_eq!(queue.entries, entries, "step {step}");
                assert!(queue.tickets.len() <= 2 * entries + FEW, "step {step}");
            }
            assert!(table.queues.ghosts.len() <= table.queues.main.entries.max(FEW) + 1, "step {step}");
        }
    }

    #[test]
    // T3
    fn a_key_that_is_added_and_removed_repeatedly_leaves_few_tickets() {
        let mut table = Table::new();
        for step in 0..10_000 {
            table.remove(step % 3);
            table.put(step % 3, 10);
            table.put(step % 3, 20);
            assert!(table.queues.small.tickets.len() <= 3 * FEW, "step {step}");
        }
        assert_eq!(table.queues.bytes(), table.entries.values().map(|entry| entry.weight).sum::<u64>());
    }

    #[test]
    fn a_scan_does_not_evict_frequently_used_entries() {
        let mut table = Table::new();
        for hash in 0..50 {
            table.put(hash, 10);
            assert!(table.hit(hash) && table.hit(hash));
        }
        for once in 1000..3000 {
            table.put(once, 10);
        }
        let hits = (0..50).filter(|hash| table.hit(*hash)).count();
        assert_eq!(hits, 50);
    }

    #[test]
    fn an_entry_that_returns_soon_after_its_eviction_is_kept() {
        let mut table = Table::new();
        for hash in 0..50 {
            table.put(hash, 10);
            table.hit(hash);
            table.hit(hash);
        }
        for once in 1000..1060 {
            table.put(once, 10);
        }
        assert!(!table.hit(1001), "it was asked for once");
        table.put(1001, 10);
        for once in 2000..2020 {
            table.put(once, 10);
        }
        assert!(table.hit(1001));
    }

    #[test]
    fn unused_entries_are_evicted() {
        let mut table = Table::new();
        for hash in 0..100 {
            table.put(hash, 10);
            table.hit(hash);
            table.hit(hash);
        }
        // Other entries become popular.
        for _round in 0..20 {
            for hash in 500..600 {
                if !table.hit(hash) {
                    table.put(hash, 10);
                }
            }
        }
        let (old, new) = (0..100).fold((0, 0), |(old, new), hash| {
            (old + usize::from(table.hit(hash)), new + usize::from(table.hit(hash + 500)))
        });
        assert!(new > 60 && old < 40, "{old} of before, {new} of now");
    }

    /// Returns how many requests are hits. Lower keys are requested more often (Zipf's law,
    /// exponent 0.9), with a long scan over other keys in between.
    fn hits(mut ask: impl FnMut(u32) -> bool) -> usize {
        let mut ends = Vec::new();
        let sum = (1..=20_000).map(|rank| f64::from(rank).powf(-0.9)).fold(0.0, |sum, share| {
            ends.push(sum + share);
            sum + share
        });
        let mut draw = draws(7);
        let mut hits = 0;
        for step in 0..200_000_u32 {
            let at = draw(1 << 30) as f64 / f64::from(1 << 30) * sum;
            hits += usize::from(ask(ends.partition_point(|end| *end < at) as u32));
            if step % 4 == 0 {
                ask(1_000_000 + step);
            }
        }
        hits
    }

    #[test]
    fn the_hit_ratio_matches_quick_cache() {
        let mut table = Table::new();
        let ours = hits(|hash| {
            let hit = table.hit(hash);
            if !hit {
                table.put(hash, 1);
            }
            hit
        });
        let mut peer = quick_cache::unsync::Cache::<u32, ()>::new(LIMIT as usize);
        let theirs = hits(|hash| {
            let hit = peer.get(&hash).is_some();
            if !hit {
                peer.insert(hash, ());
            }
            hit
        });
        assert!(ours * 100 >= theirs * 99, "{ours} of ours, {theirs} of theirs");
    }
}
