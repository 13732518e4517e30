//! What happened inside the cache, for logs, metrics and tests.
//!
//! Events carry names of functions and kinds of faults; never keys, payloads or credentials.

#[cfg(feature = "tracing")]
mod log;
#[cfg(feature = "sessions")]
mod session;

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

#[cfg(feature = "tracing")]
use self::log::Log;
#[cfg(feature = "sessions")]
pub use self::session::{SessionEvent, SessionStats};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};

/// Something worth knowing that a caller does not see.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The store's connection is up and set up.
    Connected,
    /// The connection is lost; calls compute until it is back.
    Disconnected {
        /// Why, as far as it is known.
        reason: Arc<str>,
    },
    /// An attempt to connect failed; the next ones follow by themselves. Told when the reason is a new one, and once a
    /// minute while it stays.
    ConnectFailed {
        /// Whether this can only be mended by a change (credentials, address), or may pass.
        kind: ErrorKind,
        /// What the server or the system said.
        reason: Arc<str>,
    },
    /// A store operation failed; the call went on without it. Not told for calls while there is no connection:
    /// [`Disconnected`](Self::Disconnected) says that once.
    StoreFailed {
        /// The operation, such as `"read"` or `"fill"`.
        step: &'static str,
        /// What sort of fault.
        kind: ErrorKind,
        /// What the server or the system said.
        reason: Arc<str>,
    },
    /// Stored bytes are not a record of this function: a miss.
    Undecodable {
        /// The function's key name.
        name: Arc<str>,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// A computed value was returned but not stored, because its lease was gone: invalidated, overwritten or expired.
    FillRefused {
        /// The function's key name.
        name: Arc<str>,
    },
    /// A closure of the function (`ttl`, `cache_if`, `tags`) panicked after it had returned a value. The value was returned and
    /// not stored.
    FillPanicked {
        /// The function's key name.
        name: Arc<str>,
    },
    /// A value was served after its ttl instead of what the function would have returned.
    StaleServed {
        /// The function's key name.
        name: Arc<str>,
        /// What kept the function from it.
        cause: StaleCause,
    },
    /// A refresh in the background came to nothing; the old value stays, and the next refresh waits for the throttle.
    RefreshFailed {
        /// The function's key name.
        name: Arc<str>,
    },
    /// As many refreshes run in the background as may; this one was left out.
    RefreshSkipped {
        /// The function's key name.
        name: Arc<str>,
    },
    /// A run took longer than its deadline.
    DeadlinePassed {
        /// The function's key name.
        name: Arc<str>,
    },
    /// A value could not be encoded; it was returned, not stored.
    EncodeFailed {
        /// The function's key name.
        name: Arc<str>,
        /// The codec's message.
        reason: Arc<str>,
    },
    /// A value is over the size limit; it was returned, not stored.
    TooLarge {
        /// The function's key name.
        name: Arc<str>,
        /// Its encoded size in bytes.
        bytes: usize,
    },
    /// An entry would have more than 128 tags; its value was returned, not stored.
    TooManyTags {
        /// The function's key name.
        name: Arc<str>,
        /// How many it would have, or 17 where it would have more.
        tags: usize,
    },
    /// More than 16 fences stand on one entry or tag at once: it stays fenced until the last of them would end by its time.
    TooManyFences {
        /// The function's key name; none for a tag.
        name: Option<Arc<str>>,
    },
    /// A codec cannot read back what it wrote for this type; MessagePack is used for it instead.
    CodecReplaced {
        /// The value's type.
        type_name: &'static str,
        /// The codec that was asked for.
        codec: &'static str,
    },
    /// A value of this type that was read back after it was encoded was not equal to what the
    /// function had returned: a field that is skipped, say. The first caller gets what the function
    /// returned, all others what was read back. Told once for each type and codec.
    ReadBackDiffers {
        /// The value's type.
        type_name: &'static str,
    },
    /// The structural fingerprint of this type is incomplete, so a change of its fields may go unnoticed: set `version`.
    FingerprintIncomplete {
        /// The value's type.
        type_name: &'static str,
    },
    /// Nothing is installed: `#[cached]` functions use a cache in this process's memory.
    NotInstalled,
    /// The server does not allow client tracking; waiting for other processes falls back to polling.
    TrackingUnavailable {
        /// What the server said.
        reason: Arc<str>,
    },
    /// The server does not allow `CLIENT INFO` or `CLIENT KILL`: a write that timed out on a lost connection may be executed after
    /// later ones.
    KillUnavailable {
        /// What the server said.
        reason: Arc<str>,
    },
    /// The user may not run `INFO`: the server's version is taken for granted, evictions are
    /// noticed later, and a restarted
    /// server is told from another only by its connections. Told once.
    InfoUnavailable,
    /// The URL has an option of another client, which changes nothing here.
    UrlOptionIgnored {
        /// Its name, without capitals and `_`.
        option: &'static str,
    },
    /// More operations wait for the connection than are kept: the oldest leases are not given back, and run out by themselves. Told once until
    /// none waits any more.
    OutstandingDropped,
    /// The consistency meter found a value in this process that was replaced in the store, and was served longer than `max_staleness` after
    /// that: changes are not told as they should be.
    StaleBeyondBound {
        /// The function's key name.
        name: Arc<str>,
        /// How long after it was replaced it was served, at least.
        after: std::time::Duration,
    },
    /// A table of this process is full, and what it does not hold is left out or forgotten. Told
    /// once for each table of a cache.
    TableFull {
        /// Which one.
        table: Table,
    },
    /// The embedded store removed entries to stay within its memory limit.
    Evicted {
        /// How many at once.
        entries: u64,
    },
    /// Something happened to a web session.
    #[cfg(feature = "sessions")]
    Session(SessionEvent),
}

/// What has room for so many only. None of them grows beyond that, and a full one costs time, never
/// a wrong value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Table {
    /// Names that are counted one by one (512, half of them from keys by hand): the others are
    /// counted as `(other)`.
    FunctionNames,
    /// Names whose builds are known (4,096): what was used least recently is asked for again. Names
    /// of keys by hand seem to be data, which belong into their parts.
    Builds,
    /// Keys that are left alone after a refresh failed (4,096): the store is asked for them again.
    Resting,
    /// Calls that wait for another process (65,536): more of them poll.
    Waiters,
}

/// Why an old value was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StaleCause {
    /// The function returned an error.
    Failed,
    /// It took longer than its deadline.
    DeadlinePassed,
    /// It failed a moment ago, here or in another process, and is not tried again yet.
    Throttled,
    /// It took longer than the soft timeout, and goes on.
    SoftTimeout,
}

/// A function that sees every event at once, on the task where it happens. It must not block.
pub type Observer = dyn Fn(&Event) + Send + Sync;

/// How many events a slow subscriber may lag behind before it misses some.
const SUBSCRIBER_BUFFER: usize = 1024;

/// The place where events are told. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events(Arc<Inner>);

struct Inner {
    observers: Vec<Arc<Observer>>,
    sender: broadcast::Sender<Event>,
    stats: Counters,
    /// A bit for each table that was told to be full.
    full: AtomicU8,
    #[cfg(feature = "tracing")]
    log: Log,
}

impl Events {
    /// `clock`: which log lines repeat is measured by it.
    pub(crate) fn new(observers: Vec<Arc<Observer>>, clock: &Clock) -> Self {
        #[cfg(not(feature = "tracing"))]
        let _ = clock;
        Self(Arc::new(Inner {
            observers,
            sender: broadcast::Sender::new(SUBSCRIBER_BUFFER),
            stats: Counters::default(),
            full: AtomicU8::new(0),
            #[cfg(feature = "tracing")]
            log: Log::new(clock.clone()),
        }))
    }

    pub(crate) fn emit(&self, event: Event) {
        self.0.stats.note(&event);
        #[cfg(feature = "tracing")]
        guarded(|| self.0.log.tell(&event));
        for observer in &self.0.observers {
            guarded(|| observer(&event));
        }
        // An error here only says that nobody listens.
        drop(self.0.sender.send(event));
    }

    /// Writes the log lines of what has repeated for ten seconds. Called now and then, so that the
    /// last count is written even if nothing else happens.
    pub(crate) fn log_repeats(&self) {
        #[cfg(feature = "tracing")]
        guarded(|| self.0.log.flush(false));
    }

    /// Writes the log lines of everything that has repeated, before the cache ends.
    pub(crate) fn log_all_repeats(&self) {
        #[cfg(feature = "tracing")]
        guarded(|| self.0.log.flush(true));
    }

    /// Tells that a table is full, the first time.
    pub(crate) fn table_full(&self, table: Table) {
        let bit = 1 << table as u8;
        let is_told = self.0.full.load(Ordering::Relaxed) & bit != 0;
        if !is_told && self.0.full.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.emit(Event::TableFull { table });
        }
    }

    /// The event for a store fault that a call survived. While there is no connection, which has its own event, each
    /// call is only counted: a log that grows with the load helps nobody.
    pub(crate) fn store_failed(&self, error: &Error, connected: bool) {
        if error.kind() == ErrorKind::Closed || (error.kind() == ErrorKind::Unavailable && !connected) {
            return bump(&self.0.stats.store_failures);
        }
        self.emit(Event::StoreFailed { step: error.step(), kind: error.kind(), reason: reason(error) });
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.sender.subscribe()
    }

    pub(crate) fn count(&self) -> &Counters {
        &self.0.stats
    }
}

/// Runs user code. A panic in it is reported by the panic hook, and ends no task of the library (S10).
fn guarded(user: impl FnOnce()) {
    let _panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(user));
}

impl Drop for Inner {
    fn drop(&mut self) {
        #[cfg(feature = "tracing")]
        guarded(|| self.log.flush(true));
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// An error with its sources in one line.
pub(crate) fn reason(error: &(dyn std::error::Error + 'static)) -> Arc<str> {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text.into()
}

/// Counters of one cache; they only ever rise.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) computes: AtomicU64,
    pub(crate) compute_errors: AtomicU64,
    pub(crate) fills: AtomicU64,
    pub(crate) renewed: AtomicU64,
    stale: AtomicU64,
    pub(crate) refreshes: AtomicU64,
    refreshes_skipped: AtomicU64,
    pub(crate) joined: AtomicU64,
    pub(crate) waited: AtomicU64,
    pub(crate) renewals: AtomicU64,
    refused_fills: AtomicU64,
    undecodable: AtomicU64,
    pub(crate) store_failures: AtomicU64,
    connects: AtomicU64,
    pub(crate) meter_samples: AtomicU64,
    meter_stale: AtomicU64,
    evicted: AtomicU64,
    #[cfg(feature = "sessions")]
    sessions: session::Counters,
}

/// Counters that threads do not fight over: each adds in a stripe of its own, without locking it.
pub(crate) struct Striped {
    /// The last is that of the threads that found none free, or are ending. Apart by as much as processors fetch at once.
    stripes: [Box<[AtomicU64]>; OWN_STRIPES + 1],
}

const OWN_STRIPES: usize = 32;
/// Two cache lines, which processors fetch in pairs, in counters.
const APART: usize = 16;

/// A thread's stripe in all such counters; free again once the thread has ended.
struct Seat(usize);

/// No seat was looked for yet.
const UNSEATED: usize = usize::MAX;

thread_local! {
    /// The number of this thread's seat; [`OWN_STRIPES`] if it has none.
    static SEAT: Cell<usize> = const { Cell::new(UNSEATED) };
    /// What gives the seat back.
    static TAKEN: Seat = Seat::take();
}

static FREE_SEATS: Mutex<[bool; OWN_STRIPES]> = Mutex::new([true; OWN_STRIPES]);

impl Seat {
    fn take() -> Self {
        let mut free = FREE_SEATS.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = free.iter().position(|free| *free);
        if let Some(free) = seat.and_then(|seat| free.get_mut(seat)) {
            *free = false;
        }
        Self(seat.unwrap_or(OWN_STRIPES))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // What this thread still counts while it ends goes where nobody has a seat.
        SEAT.set(OWN_STRIPES);
        // Under the lock, so that the next thread there sees all that this one has counted.
        if let Some(free) = FREE_SEATS.lock().unwrap_or_else(PoisonError::into_inner).get_mut(self.0) {
            *free = true;
        }
    }
}

impl Striped {
    pub(crate) fn new(counters: usize) -> Self {
        let stripe = || (0..counters.saturating_add(APART)).map(|_| AtomicU64::new(0)).collect();
        Self { stripes: std::array::from_fn(|_| stripe()) }
    }

    #[inline(always)]
    pub(crate) fn add(&self, counter: usize) {
        let seat = SEAT.get();
        if seat < OWN_STRIPES
            && let Some(count) = self.count(seat, counter)
        {
            // Nobody else writes here: a third of what a locked addition takes.
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        } else {
            self.add_unseated(counter);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_unseated(&self, counter: usize) {
        if SEAT.get() == UNSEATED {
            // An error says that this thread is ending.
            SEAT.set(TAKEN.try_with(|taken| taken.0).unwrap_or(OWN_STRIPES));
            if SEAT.get() < OWN_STRIPES {
                return self.add(counter);
            }
        }
        if let Some(count) = self.count(OWN_STRIPES, counter) {
            bump(count);
        }
    }

    #[inline(always)]
    fn count(&self, stripe: usize, counter: usize) -> Option<&AtomicU64> {
        self.stripes.get(stripe)?.get(counter)
    }

    pub(crate) fn sum(&self, counter: usize) -> u64 {
        let counts = self.stripes.iter().filter_map(|stripe| stripe.get(counter));
        counts.fold(0, |sum, count| sum.wrapping_add(count.load(Ordering::Relaxed)))
    }
}

/// Adds one.
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What a cache has done since it was made. Counters only ever rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Calls answered from a value in the store.
    pub hits: u64,
    /// Calls answered from the tier in this process, without asking the store.
    pub local_hits: u64,
    /// Calls that found no usable value.
    pub misses: u64,
    /// Times a function's body ran for the cache.
    pub computes: u64,
    /// Times it returned an error.
    pub compute_errors: u64,
    /// Values stored after a compute.
    pub fills: u64,
    /// Values that their function kept: their ttl was renewed, and they were not stored anew.
    pub renewed: u64,
    /// Values served after their ttl because the function failed or took too long. What is served while a refresh runs is a hit.
    pub stale: u64,
    /// Refreshes begun while the old value was served.
    pub refreshes: u64,
    /// Refreshes left out because as many ran as may.
    pub refreshes_skipped: u64,
    /// Calls that shared the run of another call in this process.
    pub joined: u64,
    /// Calls that waited for another process.
    pub waited: u64,
    /// Times a lease was renewed because its run took that long.
    pub renewals: u64,
    /// Values not stored because their lease was gone.
    pub refused_fills: u64,
    /// Stored bytes that were no record.
    pub undecodable: u64,
    /// Store operations that failed.
    pub store_failures: u64,
    /// Connections made.
    pub connects: u64,
    /// Hits in this process that the consistency meter compared with the store.
    pub meter_samples: u64,
    /// Those of them that were stale beyond `max_staleness`.
    pub meter_stale: u64,
    /// Entries the embedded store gave up for its memory limit.
    pub evicted: u64,
    /// What happened to web sessions.
    #[cfg(feature = "sessions")]
    pub sessions: SessionStats,
}

impl Counters {
    fn note(&self, event: &Event) {
        match event {
            Event::Connected => bump(&self.connects),
            Event::StoreFailed { .. } => bump(&self.store_failures),
            Event::Undecodable { .. } => bump(&self.undecodable),
            Event::FillRefused { .. } => bump(&self.refused_fills),
            Event::RefreshSkipped { .. } => bump(&self.refreshes_skipped),
            Event::StaleServed { .. } => bump(&self.stale),
            Event::StaleBeyondBound { .. } => bump(&self.meter_stale),
            Event::Evicted { entries } => {
                self.evicted.fetch_add(*entries, Ordering::Relaxed);
            }
            #[cfg(feature = "sessions")]
            Event::Session(event) => self.sessions.note(event),
            _ => {}
        }
    }

    /// `local_hits`: those are counted by function.
    pub(crate) fn snapshot(&self, local_hits: u64) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            hits: read(&self.hits),
            local_hits,
            misses: read(&self.misses),
            computes: read(&self.computes),
            compute_errors: read(&self.compute_errors),
            fills: read(&self.fills),
            renewed: read(&self.renewed),
            stale: read(&self.stale),
            refreshes: read(&self.refreshes),
            refreshes_skipped: read(&self.refreshes_skipped),
            joined: read(&self.joined),
            waited: read(&self.waited),
            renewals: read(&self.renewals),
            refused_fills: read(&self.refused_fills),
            undecodable: read(&self.undecodable),
            store_failures: read(&self.store_failures),
            connects: read(&self.connects),
            meter_samples: read(&self.meter_samples),
            meter_stale: read(&self.meter_stale),
            evicted: read(&self.evicted),
            #[cfg(feature = "sessions")]
            sessions: self.sessions.snapshot(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn nothing_is_lost_when_more_threads_count_than_there_are_stripes() {
        let counters = Striped::new(3);
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..OWN_STRIPES + 8 {
                    scope.spawn(|| (0..1000).for_each(|_| counters.add(1)));
                }
            });
        }
        assert_eq!([0, 1, 2].map(|one| counters.sum(one)), [0, 3 * (OWN_STRIPES as u64 + 8) * 1000, 0]);
    }

    #[test]
    fn what_a_thread_counts_while_it_ends_is_counted_where_several_may() {
        struct Last(Arc<Striped>, mpsc::Sender<usize>);
        impl Drop for Last {
            fn drop(&mut self) {
                self.0.add(0);
                self.1.send(SEAT.get()).unwrap();
            }
        }
        thread_local!(static LAST: OnceCell<Last> = const { OnceCell::new() });
        let (counters, (seat, seats)) = (Arc::new(Striped::new(1)), mpsc::channel());
        let last = Last(Arc::clone(&counters), seat);
        let thread = std::thread::spawn(move || {
            // As the standard library does it, though it promises nothing: what is made first is dropped last, so after the thread's seat.
            LAST.with(|of_thread| of_thread.get_or_init(|| last).0.add(0));
        });
        thread.join().unwrap();
        assert_eq!((counters.sum(0), seats.recv()), (2, Ok(OWN_STRIPES)));
    }
}
