//! Events inside the cache, for logs, metrics and tests.
//!
//! Events carry names of functions and kinds of failures; never keys, payloads or credentials.

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

/// An event inside the cache that its caller does not see.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The store's connection is ready for use.
    Connected,
    /// The connection is lost. Calls compute until it is back.
    Disconnected {
        /// The reason, as far as it is known.
        reason: Arc<str>,
    },
    /// An attempt to connect failed. Further attempts follow automatically.
    ///
    /// Emitted when the reason changes, and once a minute while it stays the same.
    ConnectFailed {
        /// Whether this needs a change (credentials, address), or may pass.
        kind: ErrorKind,
        /// The message of the server or the system.
        reason: Arc<str>,
    },
    /// A store operation failed; the call went on without it.
    ///
    /// Not emitted for calls while there is no connection: [`Disconnected`](Self::Disconnected)
    /// reports that once.
    StoreFailed {
        /// The operation, such as `"read"` or `"fill"`.
        step: &'static str,
        /// The kind of the failure.
        kind: ErrorKind,
        /// The message of the server or the system.
        reason: Arc<str>,
    },
    /// The stored bytes are not a record of this function. The call is a miss.
    Undecodable {
        /// The function's key name.
        name: Arc<str>,
        /// What is wrong with the bytes.
        reason: &'static str,
    },
    /// A computed value was returned but not stored, because its lease was gone: the key was
    /// invalidated or overwritten, or the lease expired.
    FillRefused {
        /// The function's key name.
        name: Arc<str>,
    },
    /// A closure of the function (`ttl`, `cache_if`, `tags`) panicked after the function returned.
    /// The value was returned and not stored.
    FillPanicked {
        /// The function's key name.
        name: Arc<str>,
    },
    /// A value was served after its ttl because the function returned no new one.
    StaleServed {
        /// The function's key name.
        name: Arc<str>,
        /// Why the function returned no new value.
        cause: StaleCause,
    },
    /// A background refresh failed. The old value stays, and the next refresh waits for the
    /// throttle.
    RefreshFailed {
        /// The function's key name.
        name: Arc<str>,
    },
    /// A refresh was skipped, because the maximum number of background refreshes was running.
    RefreshSkipped {
        /// The function's key name.
        name: Arc<str>,
    },
    /// A compute exceeded its deadline.
    DeadlinePassed {
        /// The function's key name.
        name: Arc<str>,
    },
    /// A value could not be encoded. It was returned and not stored.
    EncodeFailed {
        /// The function's key name.
        name: Arc<str>,
        /// The codec's message.
        reason: Arc<str>,
    },
    /// A value is over the size limit. It was returned and not stored.
    TooLarge {
        /// The function's key name.
        name: Arc<str>,
        /// Its encoded size in bytes.
        bytes: usize,
    },
    /// An entry would have more than 128 tags. Its value was returned and not stored.
    TooManyTags {
        /// The function's key name.
        name: Arc<str>,
        /// The number of tags. Of the tags that do not depend on the value, at most 129 are
        /// counted.
        tags: usize,
    },
    /// There are more than 16 fences on one entry or tag at once. It stays fenced until the last of
    /// them would expire.
    TooManyFences {
        /// The function's key name; `None` for a tag.
        name: Option<Arc<str>>,
    },
    /// A codec cannot read back what it wrote for this type. MessagePack is used for it instead.
    CodecReplaced {
        /// The value's type.
        type_name: &'static str,
        /// The configured codec.
        codec: &'static str,
    },
    /// A value of this type differed from the original after it was encoded and read back, for
    /// example because a field is skipped.
    ///
    /// The first caller gets what the function returned, all others what was read back. Emitted
    /// once for each type and codec.
    ReadBackDiffers {
        /// The value's type.
        type_name: &'static str,
    },
    /// The structural fingerprint of this type is incomplete, so a change of its fields may go
    /// unnoticed. Set `version`.
    FingerprintIncomplete {
        /// The value's type.
        type_name: &'static str,
    },
    /// No cache is installed: `#[cached]` functions use a cache in this process's memory.
    NotInstalled,
    /// The server does not allow client tracking. Waiting for other processes falls back to
    /// polling.
    TrackingUnavailable {
        /// The message of the server.
        reason: Arc<str>,
    },
    /// The server does not allow `CLIENT INFO` or `CLIENT KILL`. A write that timed out on a lost
    /// connection may be executed after later writes.
    KillUnavailable {
        /// The message of the server.
        reason: Arc<str>,
    },
    /// The user may not run `INFO`. Emitted once.
    ///
    /// The server's version is not checked, evictions are noticed later, and a restarted server is
    /// recognized only by its connections.
    InfoUnavailable,
    /// The URL has an option of another client, which has no effect here.
    UrlOptionIgnored {
        /// Its name in lower case, without `_`.
        option: &'static str,
    },
    /// More operations wait for the connection than the queue holds. The oldest leases are not
    /// released, and expire by themselves.
    ///
    /// Emitted once until the queue is empty again.
    OutstandingDropped,
    /// The consistency meter found a stale value in this process: it was replaced in the store and
    /// still served longer than `max_staleness` after that.
    ///
    /// Changes are not notified as they should be.
    StaleBeyondBound {
        /// The function's key name.
        name: Arc<str>,
        /// A lower bound for how long after its replacement the value was served.
        after: std::time::Duration,
    },
    /// A table of this process is full, and further items are left out or forgotten. Emitted once
    /// for each table of a cache.
    TableFull {
        /// The table.
        table: Table,
    },
    /// The embedded store removed entries to stay within its memory limit.
    Evicted {
        /// The number of entries removed at once.
        entries: u64,
    },
    /// An event of a web session.
    #[cfg(feature = "sessions")]
    Session(SessionEvent),
}

/// A table with a fixed capacity. It never grows beyond that, and a full one costs time, never a
/// wrong value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Table {
    /// Names with counters of their own (512, at most half of them from keys of `get_or_compute`).
    /// All others are counted as `(other)`.
    FunctionNames,
    /// Names whose builds are known (4,096). The least recently used are forgotten and looked up
    /// again. A full table suggests that the names of keys contain data, which belongs in the parts
    /// of the key.
    Builds,
    /// Keys whose last refresh failed and which are not retried yet (4,096). For further keys the
    /// store is asked again.
    Cooldowns,
    /// Calls that wait for another process (65,536). Further calls poll.
    Waiters,
}

/// Why an old value was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StaleCause {
    /// The function returned an error.
    Failed,
    /// The function exceeded its deadline.
    DeadlinePassed,
    /// The function failed a moment ago, here or in another process, and is not retried yet.
    Throttled,
    /// The function took longer than the soft timeout, and goes on.
    SoftTimeout,
}

/// A function that is called with every event, synchronously on the task that emits it. It must not
/// block.
pub type Observer = dyn Fn(&Event) + Send + Sync;

/// How many events a slow subscriber may lag behind before it misses some.
const SUBSCRIBER_BUFFER: usize = 1024;
/// The target of all log lines, whichever module writes them.
#[cfg(feature = "tracing")]
pub(crate) const TARGET: &str = "cache_core";

/// The event sink of one cache. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events(Arc<Inner>);

struct Inner {
    observers: Vec<Arc<Observer>>,
    sender: broadcast::Sender<Event>,
    stats: Counters,
    /// One bit for each table that was reported as full.
    full: AtomicU8,
    #[cfg(feature = "tracing")]
    log: Log,
}

impl Events {
    /// `clock` is used to count repeated log lines.
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
        // An error only means that there is no subscriber.
        drop(self.0.sender.send(event));
    }

    /// Writes the log lines of events that have repeated for ten seconds. Called from time to time,
    /// so that the last count is written even if no other event follows.
    pub(crate) fn log_repeats(&self) {
        #[cfg(feature = "tracing")]
        guarded(|| self.0.log.flush(false));
    }

    /// Writes the log lines of all repeated events before the cache ends.
    pub(crate) fn log_all_repeats(&self) {
        #[cfg(feature = "tracing")]
        guarded(|| self.0.log.flush(true));
    }

    /// Reports that a table is full, the first time only.
    pub(crate) fn table_full(&self, table: Table) {
        let bit = 1 << table as u8;
        let is_told = self.0.full.load(Ordering::Relaxed) & bit != 0;
        if !is_told && self.0.full.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.emit(Event::TableFull { table });
        }
    }

    /// Reports a store failure that a call survived. While there is no connection, which has its
    /// own event, failures are only counted: otherwise the log would grow with the load.
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

/// Runs user code. A panic in it is reported by the panic hook and does not end a task of the
/// library (S10).
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

/// Formats an error and its sources in one line.
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

/// The counters of one cache. They only ever rise.
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

/// Counters without contention: each thread adds to its own stripe, without a locked instruction.
pub(crate) struct Striped {
    /// The last stripe is shared by threads that found no free one or are ending. The counters of
    /// different stripes are [`APART`] apart.
    stripes: [Box<[AtomicU64]>; OWN_STRIPES + 1],
}

const OWN_STRIPES: usize = 32;
/// Two cache lines, which processors fetch in pairs, in counters.
const APART: usize = 16;

/// A thread's stripe in all such counters. Free again once the thread has ended.
struct Seat(usize);

/// This thread has not looked for a seat yet.
const UNSEATED: usize = usize::MAX;

thread_local! {
    /// The number of this thread's seat; [`OWN_STRIPES`] if it has none.
    static SEAT: Cell<usize> = const { Cell::new(UNSEATED) };
    /// Releases the seat when the thread ends.
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
        // Counts of this thread from now on go to the shared stripe.
        SEAT.set(OWN_STRIPES);
        // Under the lock, so that the next thread with this seat sees all earlier counts.
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
            // Only this thread writes here: this takes a third of the time of a locked addition.
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        } else {
            self.add_unseated(counter);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_unseated(&self, counter: usize) {
        if SEAT.get() == UNSEATED {
            // An error means that this thread is ending.
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
    /// Calls answered from the local tier, without asking the store.
    pub local_hits: u64,
    /// Calls that found no usable value.
    pub misses: u64,
    /// Number of times the cache ran a function's body.
    pub computes: u64,
    /// Number of times the function returned an error.
    pub compute_errors: u64,
    /// Values stored after a compute.
    pub fills: u64,
    /// Values that their function kept: the ttl was renewed, and the payload was not stored again.
    pub renewed: u64,
    /// Values served after their ttl because the function failed or took too long. A value served
    /// while a refresh runs counts as a hit.
    pub stale: u64,
    /// Refreshes started while the old value was served.
    pub refreshes: u64,
    /// Refreshes skipped because the maximum number was running.
    pub refreshes_skipped: u64,
    /// Calls that shared the compute of another call in this process.
    pub joined: u64,
    /// Calls that waited for another process.
    pub waited: u64,
    /// Number of times a lease was renewed during a long compute.
    pub renewals: u64,
    /// Values not stored because their lease was gone.
    pub refused_fills: u64,
    /// Stored bytes that were not a record.
    pub undecodable: u64,
    /// Store operations that failed.
    pub store_failures: u64,
    /// Connections made.
    pub connects: u64,
    /// Local hits that the consistency meter compared with the store.
    pub meter_samples: u64,
    /// Sampled hits that were stale beyond `max_staleness`.
    pub meter_stale: u64,
    /// Entries that the embedded store evicted for its memory limit.
    pub evicted: u64,
    /// Counters of web sessions.
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

    /// `local_hits` is passed in, since local hits are counted per function.
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
    fn counts_of_an_ending_thread_go_to_a_shared_stripe() {
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
            // The standard library drops the value that was made first last, so after the thread's
            // seat. It does not guarantee that order.
            LAST.with(|of_thread| of_thread.get_or_init(|| last).0.add(0));
        });
        thread.join().unwrap();
        assert_eq!((counters.sum(0), seats.recv()), (2, Ok(OWN_STRIPES)));
    }
}
