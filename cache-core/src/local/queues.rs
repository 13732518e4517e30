//! Which entry goes when the tier is full: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
//!
//! ```text
//! new ──> small (a tenth) ── asked for twice ──> main ──┐ again, as often as it was asked for
//!            │ else                                └────┘
//!            └─> gone, its hash among the ghosts ── filled again ──> main
//! ```
//!
//! Hits change nothing here: an entry counts its own uses, and is looked at when it comes to the end of its queue. So what is read once in passing
//! leaves by the small queue, and hits take no lock.
//!
//! Invariant: `small.bytes + main.bytes` is the weight of what stands in the table. A queue's tickets are those of its entries and of some that have
//! left the table by another way, at most as many and a few.

use std::collections::{HashSet, VecDeque};

/// Uses beyond this many are not told apart.
pub(super) const MOST_USES: u8 = 3;
/// An entry of the small queue that was asked for this often goes on to the main one.
const USES_TO_STAY: u8 = 2;
/// What part of the limit the small queue has.
const SMALL_PART: u64 = 10;
/// Of the limit, that a single entry may take.
const LARGEST_PART: u64 = 8;
/// Tickets without an entry that are not worth looking for.
const FEW: usize = 64;

/// In which queue an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Small,
    Main,
}

/// Names an entry for as long as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) hash: u64,
    /// Of the entry, among those of its hash. One that comes again after four billion others is looked at earlier than it should be.
    pub(super) number: u32,
}

/// What becomes of an entry at the end of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stands in the main queue from now on, and its uses are these.
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
    /// Hashes of what left by the small queue, as many as there are entries in the main one.
    ghosts: VecDeque<u64>,
    haunting: HashSet<u64>,
    next: u32,
}

impl Queues {
    pub(super) fn new(limit: u64) -> Self {
        let (small, main) = (Queue::default(), Queue::default());
        Self { limit, small, main, ghosts: VecDeque::new(), haunting: HashSet::new(), next: 0 }
    }

    /// A heavier entry is not kept.
    pub(super) fn largest(&self) -> u64 {
        self.limit / LARGEST_PART
    }

    pub(super) fn bytes(&self) -> u64 {
        self.small.bytes.saturating_add(self.main.bytes)
    }

    /// An entry is put into the table.
    pub(super) fn enter(&mut self, hash: u64, weight: u64) -> (Ticket, Place) {
        let ticket = Ticket { hash, number: self.next };
        self.next = self.next.wrapping_add(1);
        // Its hash stays in the line of ghosts, and leaves it in its turn.
        let place = if self.haunting.remove(&hash) { Place::Main } else { Place::Small };
        self.queue(place).push(ticket, weight);
        (ticket, place)
    }

    /// An entry is taken out of the table. Its ticket is left behind.
    pub(super) fn leave(&mut self, place: Place, weight: u64) {
        self.queue(place).take(weight);
    }

    /// The ticket of the entry to be judged, while there is more than there may be.
    pub(super) fn surplus(&mut self) -> Option<(Ticket, Place)> {
        if self.bytes() <= self.limit {
            return None;
        }
        let place = if self.small.bytes > self.limit / SMALL_PART { Place::Small } else { Place::Main };
        let first = self.queue(place).tickets.pop_front().map(|ticket| (ticket, place));
        first.or_else(|| {
            let place = if place == Place::Small { Place::Main } else { Place::Small };
            Some((self.queue(place).tickets.pop_front()?, place))
        })
    }

    /// Of an entry at the end of its queue, whose ticket has just been taken. Where it goes, the table has to follow.
    pub(super) fn judge(&mut self, ticket: Ticket, place: Place, uses: u8, weight: u64) -> Verdict {
        self.queue(place).take(weight);
        let left = match place {
            Place::Small if uses >= USES_TO_STAY => Some(0),
            Place::Main => uses.checked_sub(1),
            Place::Small => None,
        };
        match left {
            Some(uses) => {
                self.main.push(ticket, weight);
                Verdict::Stays(uses)
            }
            None => {
                if place == Place::Small {
                    self.haunt(ticket.hash);
                }
                Verdict::Goes
            }
        }
    }

    /// Forgets tickets whose entries have gone, where there are many. `stands` asks the table.
    pub(super) fn tidy(&mut self, stands: impl Fn(Ticket) -> Option<Place>) {
        for place in [Place::Small, Place::Main] {
            let queue = self.queue(place);
            if queue.tickets.len() > queue.entries.saturating_mul(2).saturating_add(FEW) {
                queue.tickets.retain(|ticket| stands(*ticket) == Some(place));
            }
        }
    }

    /// The table is empty.
    pub(super) fn clear(&mut self) {
        let Self { limit, next, .. } = *self;
        *self = Self { next, ..Self::new(limit) };
    }

    fn haunt(&mut self, hash: u64) {
        if self.haunting.insert(hash) {
            self.ghosts.push_back(hash);
        }
        while self.ghosts.len() > self.main.entries.max(FEW) {
            let Some(oldest) = self.ghosts.pop_front() else { return };
            self.haunting.remove(&oldest);
        }
    }

    fn queue(&mut self, place: Place) -> &mut Queue {
        match place {
            Place::Small => &mut self.small,
            Place::Main => &mut self.main,
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
