//! The log lines of events. Repeated lines are counted.
//!
//! ```text
//! first of its kind ──> a line at once          then, for ten seconds: counted
//!                                               after that: one line with the count,
//!                                               and ten seconds more
//! ```
//!
//! A count that is due is written with the next event of any kind, with a heartbeat of the store's
//! connection, or when the cache ends; there is no task for it. Lines of the level `debug` are all
//! written.
//!
//! Invariant: memory is bounded. [`MOST`] kinds are counted separately, each with its last event;
//! further kinds are counted as one.

use std::mem::{Discriminant, discriminant};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "sessions")]
use super::session::SessionEvent;
use super::{Event, StaleCause, Table};
use crate::clock::Clock;
use crate::error::ErrorKind;

/// For how long a kind of line is only counted after one was written, in milliseconds.
const QUIET_MS: u64 = 10_000;
/// Kinds that are counted separately.
const MOST: usize = 64;
/// No count waits to be written.
const NEVER: u64 = u64::MAX;

/// What lines that are counted together have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event(Discriminant<Event>),
    /// With a reason or the name of a type, which are constants of the program.
    Constant(Discriminant<Event>, &'static str),
    Store(&'static str, ErrorKind),
    Stale(StaleCause),
    Full(Table),
    #[cfg(feature = "sessions")]
    Session(Discriminant<SessionEvent>),
    /// All kinds beyond the limit.
    Other,
}

impl Kind {
    fn of(event: &Event) -> Self {
        match event {
            Event::StoreFailed { step, kind, .. } => Self::Store(step, *kind),
            Event::StaleServed { cause, .. } => Self::Stale(*cause),
            Event::TableFull { table } => Self::Full(*table),
            Event::Undecodable { reason, .. } => Self::Constant(discriminant(event), reason),
            Event::CodecReplaced { type_name, .. }
            | Event::ReadBackDiffers { type_name }
            | Event::FingerprintIncomplete { type_name }
            | Event::UrlOptionIgnored { option: type_name } => Self::Constant(discriminant(event), type_name),
            #[cfg(feature = "sessions")]
            Event::Session(event) => Self::Session(discriminant(event)),
            event => Self::Event(discriminant(event)),
        }
    }
}

/// Returns whether its line has the level `debug`.
fn is_detail(event: &Event) -> bool {
    match event {
        Event::FillRefused { .. } | Event::Evicted { .. } => true,
        #[cfg(feature = "sessions")]
        Event::Session(event) => super::session::is_detail(event),
        _ => false,
    }
}

/// A kind of line that was written at least once.
struct Repeated {
    kind: Kind,
    /// When the last line was written, on the coarse clock, which may have started just now;
    /// `None`: no line was written.
    written_at: Option<u64>,
    /// How often it has happened since.
    count: u64,
    last: Option<Event>,
}

impl Repeated {
    fn is_quiet(&self, now: u64) -> bool {
        self.written_at.is_some_and(|at| now.saturating_sub(at) < QUIET_MS)
    }

    /// Returns when the count has to be written.
    fn due(&self) -> u64 {
        self.written_at.map_or(0, |at| at.saturating_add(QUIET_MS))
    }

    /// Returns the line to write in place of all that were counted.
    fn take(&mut self, now: u64) -> Option<(Event, u64)> {
        self.written_at = Some(now);
        self.last.take().zip(Some(std::mem::take(&mut self.count)))
    }
}

/// The log of one cache.
pub(super) struct Log {
    clock: Clock,
    /// When a count has to be written next.
    due: AtomicU64,
    kinds: Mutex<Vec<Repeated>>,
}

impl Log {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, due: AtomicU64::new(NEVER), kinds: Mutex::default() }
    }

    pub(super) fn tell(&self, event: &Event) {
        if is_detail(event) {
            write(event, None);
        } else if let Some(count) = self.note(event) {
            write(event, (count > 1).then_some(count));
        }
        self.flush(false);
    }

    /// Writes the counts that are due, or all of them.
    pub(super) fn flush(&self, all: bool) {
        let now = self.clock.coarse();
        if !all && now < self.due.load(Ordering::Relaxed) {
            return;
        }
        let lines: Vec<(Event, u64)> = {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            let due = kinds.iter_mut().filter(|each| each.count > 0 && (all || !each.is_quiet(now)));
            let lines = due.filter_map(|each| each.take(now)).collect();
            let waiting = kinds.iter().filter(|each| each.count > 0);
            let next = waiting.map(Repeated::due).min();
            self.due.store(next.unwrap_or(NEVER), Ordering::Relaxed);
            lines
        };
        // The subscriber is user code, so the lock is released before.
        for (event, count) in lines {
            write(&event, Some(count));
        }
    }

    /// Counts an event. Returns the number of events to write with its line; `None`: it is only
    /// counted.
    fn note(&self, event: &Event) -> Option<u64> {
        let now = self.clock.coarse();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let at = place(&mut kinds, Kind::of(event), now);
        let known = kinds.get_mut(at)?;
        known.count = known.count.saturating_add(1);
        if known.is_quiet(now) {
            known.last = Some(event.clone());
            self.due.fetch_min(known.due(), Ordering::Relaxed);
            return None;
        }
        let count = known.count;
        let _counted = known.take(now);
        Some(count)
    }
}

/// Returns the index at which this kind is counted.
fn place(kinds: &mut Vec<Repeated>, kind: Kind, now: u64) -> usize {
    let of = |kinds: &[Repeated], kind| kinds.iter().position(|each| each.kind == kind);
    if let Some(at) = of(kinds, kind) {
        return at;
    }
    let new = |kind| Repeated { kind, written_at: None, count: 0, last: None };
    if kinds.len() < MOST {
        kinds.push(new(kind));
        return kinds.len().saturating_sub(1);
    }
    // Replaces a kind that has not happened recently.
    let idle = kinds.iter().position(|each| each.count == 0 && !each.is_quiet(now));
    if let Some((at, idle)) = idle.and_then(|at| Some((at, kinds.get_mut(at)?))) {
        *idle = new(kind);
        return at;
    }
    of(kinds, Kind::Other).unwrap_or_else(|| {
        kinds.push(new(Kind::Other));
        kinds.len().saturating_sub(1)
    })
}

/// Writes a line. `count`: how often it has happened since the last line of its kind, if those
/// events were only counted.
fn write(event: &Event, count: Option<u64>) {
    match event {
        Event::Connected => tracing::info!(target: super::TARGET, count, "cache store connected"),
        Event::NotInstalled => tracing::warn!(target: super::TARGET,
            count,
            "no cache is installed: #[cached] functions use this process's memory; call `Cache::install` at start-up"
        ),
        Event::Disconnected { reason } => {
            tracing::warn!(target: super::TARGET, %reason, count, "cache store disconnected; functions run uncached until it is back")
        }
        Event::ConnectFailed { reason, .. } => {
            tracing::warn!(target: super::TARGET, %reason, count, "cache store cannot be reached; trying again")
        }
        Event::StoreFailed { step, reason, .. } => {
            tracing::warn!(target: super::TARGET, step, %reason, count, "cache store operation failed")
        }
        Event::Undecodable { name, reason } => {
            tracing::warn!(target: super::TARGET, %name, reason, count, "stored bytes are not a record; treated as a miss")
        }
        Event::FillRefused { name } => {
            tracing::debug!(target: super::TARGET, %name, "value not stored: its lease was lost")
        }
        Event::FillPanicked { name } => {
            tracing::error!(target: super::TARGET, %name, count, "a closure in the function's options panicked; the value was returned but not stored")
        }
        Event::StaleServed { name, cause } => {
            tracing::warn!(target: super::TARGET, %name, ?cause, count, "a value was served after its ttl")
        }
        Event::RefreshFailed { name } => {
            tracing::warn!(target: super::TARGET, %name, count, "refresh failed; the old value is kept")
        }
        Event::RefreshSkipped { name } => {
            tracing::warn!(target: super::TARGET, %name, count, "refresh skipped: the maximum number of refreshes is running")
        }
        Event::DeadlinePassed { name } => {
            tracing::warn!(target: super::TARGET, %name, count, "a compute took longer than its deadline")
        }
        Event::EncodeFailed { name, reason } => {
            tracing::error!(target: super::TARGET, %name, %reason, count, "value could not be encoded; not cached")
        }
        Event::TooLarge { name, bytes } => {
            tracing::warn!(target: super::TARGET, %name, bytes, count, "value exceeds the size limit; not cached")
        }
        Event::TooManyTags { name, tags } => {
            tracing::warn!(target: super::TARGET, %name, tags, count, "value has too many tags; not cached")
        }
        Event::TooManyFences { name } => {
            let name = name.as_deref().unwrap_or("a tag");
            tracing::warn!(target: super::TARGET,
                name,
                count,
                "more than 16 write fences at once; fenced until the last one expires"
            )
        }
        Event::CodecReplaced { type_name, codec } => tracing::warn!(target: super::TARGET,
            type_name,
            codec,
            count,
            "the codec cannot read back what it writes for this type, so MessagePack is used; write `codec = \"msgpack\"`"
        ),
        Event::ReadBackDiffers { type_name } => tracing::warn!(target: super::TARGET,
            type_name,
            count,
            "values of this type change when they are stored and read back; only the first caller gets exactly what the function returned"
        ),
        Event::FingerprintIncomplete { type_name } => tracing::warn!(target: super::TARGET,
            type_name,
            count,
            "changes to this type's fields may not be detected; raise `version` in #[cached(..)] when they change"
        ),
        Event::TrackingUnavailable { reason } => {
            tracing::warn!(target: super::TARGET, %reason, count, "the server does not allow CLIENT TRACKING; waiting falls back to polling")
        }
        Event::KillUnavailable { reason } => {
            tracing::warn!(target: super::TARGET, %reason, count, "the server does not allow CLIENT INFO or CLIENT KILL; writes of a lost connection may be executed later")
        }
        Event::InfoUnavailable => {
            tracing::warn!(target: super::TARGET,
                count,
                "the user may not run INFO; give it `+info` in the server's ACL to detect evictions at once"
            )
        }
        Event::UrlOptionIgnored { option } => {
            tracing::warn!(target: super::TARGET, option, count, "an option in the cache's URL is ignored: only other clients use it")
        }
        Event::OutstandingDropped => {
            tracing::warn!(target: super::TARGET,
                count,
                "too many operations wait for the connection; the oldest leases are left to expire"
            )
        }
        Event::StaleBeyondBound { name, after } => {
            tracing::error!(target: super::TARGET, %name, ?after, count, "a value was served longer than `max_staleness` after it was replaced")
        }
        Event::TableFull { table } => {
            tracing::warn!(target: super::TARGET,
                ?table,
                count,
                "a table of this process is full; check that names passed to `get_or_compute` contain no data"
            )
        }
        Event::Evicted { entries } => {
            tracing::debug!(target: super::TARGET, entries, "embedded store exceeded its memory limit and evicted entries")
        }
        #[cfg(feature = "sessions")]
        Event::Session(event) => super::session::write(event, count),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::Arc;
    use std::time::Duration;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};

    use super::*;
    use crate::observe::events::Events;

    /// Collects the lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl Lines {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl tracing::Subscriber for Lines {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            struct Text(String);
            impl Visit for Text {
                fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                    write!(self.0, "{field}={value:?} ").unwrap();
                }
            }
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn failed(step: &'static str) -> Event {
        Event::StoreFailed { step, kind: ErrorKind::Refused, reason: "full".into() }
    }

    /// Runs `test` with a cache's events on a manual clock, and the logged lines.
    fn logged(test: impl FnOnce(&Events, &Clock, &Lines)) {
        let (clock, lines) = (Clock::manual(), Lines::default());
        let events = Events::new(Vec::new(), &clock);
        tracing::subscriber::with_default(lines.clone(), || test(&events, &clock, &lines));
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    // C4
    fn a_repeated_fault_is_logged_at_once_and_then_counted_every_ten_seconds() {
        logged(|events, clock, lines| {
            for _ in 0..68 {
                events.emit(failed("fill"));
            }
            let first = lines.take();
            assert_eq!(first.len(), 1, "{first:?}");
            assert!(!first[0].contains("count"), "{first:?}");
            clock.advance(ms(QUIET_MS - 1));
            events.emit(failed("fill"));
            assert!(lines.take().is_empty());
            clock.advance(ms(1));
            events.emit(failed("fill"));
            let second = lines.take();
            assert_eq!(second.len(), 1, "{second:?}");
            assert!(second[0].contains("count=69 ") && second[0].contains("full"), "{second:?}");
            // And again.
            events.emit(failed("fill"));
            assert!(lines.take().is_empty());
            clock.advance(ms(2 * QUIET_MS));
            events.log_repeats();
            assert!(lines.take()[0].contains("count=1 "), "what was counted last is written without another fault");
            // After a quiet time the next event has a line of its own.
            clock.advance(ms(QUIET_MS));
            events.emit(failed("fill"));
            let next = lines.take();
            assert!(next.len() == 1 && !next[0].contains("count"), "{next:?}");
        });
    }

    #[test]
    // C4
    fn the_first_line_of_a_kind_is_written_at_once_even_right_after_boot() {
        let mut kinds = Vec::new();
        let at = place(&mut kinds, Kind::of(&failed("fill")), 5);
        assert!(!kinds[at].is_quiet(5));
        let _counted = kinds[at].take(5);
        assert!(kinds[at].is_quiet(5) && kinds[at].is_quiet(5 + QUIET_MS - 1));
        assert!(!kinds[at].is_quiet(5 + QUIET_MS));
    }

    #[test]
    // C4
    fn no_fault_hides_one_of_another_kind() {
        logged(|events, _, lines| {
            for _ in 0..3 {
                events.emit(failed("fill"));
                events.emit(failed("release"));
                events.emit(Event::StaleServed { name: "f".into(), cause: StaleCause::Failed });
                events.emit(Event::StaleServed { name: "f".into(), cause: StaleCause::Throttled });
                #[cfg(feature = "sessions")]
                events.emit(Event::Session(SessionEvent::BadSignature));
                #[cfg(feature = "sessions")]
                events.emit(Event::Session(SessionEvent::Failed { reason: "the store did not answer in time".into() }));
            }
            let kinds = if cfg!(feature = "sessions") { 6 } else { 4 };
            assert_eq!(lines.take().len(), kinds);
            // Lines of the level `debug` are all written.
            for _ in 0..3 {
                events.emit(Event::FillRefused { name: "f".into() });
            }
            assert_eq!(lines.take().len(), 3);
        });
    }

    #[test]
    // C4
    fn remaining_counts_are_written_with_the_next_event_or_when_the_cache_ends() {
        logged(|events, clock, lines| {
            (0..5).for_each(|_| events.emit(failed("fill")));
            clock.advance(ms(QUIET_MS));
            events.emit(Event::FillRefused { name: "f".into() });
            assert!(lines.take().last().is_some_and(|line| line.contains("count=4 ")));
            (0..3).for_each(|_| events.emit(failed("fill")));
            assert!(lines.take().is_empty());
            let other = events.clone();
            drop(other);
            assert!(lines.take().is_empty());
            events.log_all_repeats();
            assert!(lines.take()[0].contains("count=3 "));
        });
    }

    #[test]
    // C4, C1
    fn kinds_beyond_the_bound_are_counted_as_one() {
        logged(|events, clock, lines| {
            for number in 0..1000 {
                events.emit(failed(Box::leak(format!("step {number}").into_boxed_str())));
            }
            assert_eq!(lines.take().len(), MOST + 1);
            assert_eq!(events.0.log.kinds.lock().unwrap().len(), MOST + 1);
            clock.advance(ms(QUIET_MS));
            events.log_repeats();
            let counted = lines.take();
            assert!(counted.len() == 1 && counted[0].contains(&format!("count={} ", 1000 - MOST - 1)), "{counted:?}");
            // A new kind replaces an idle one.
            clock.advance(ms(QUIET_MS));
            events.emit(failed("new"));
            assert_eq!(events.0.log.kinds.lock().unwrap().len(), MOST + 1);
        });
    }
}
