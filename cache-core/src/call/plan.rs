//! One call: its key, its type and its rules.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use crate::coordination::refresh::StalenessPolicy;
use crate::coordination::single_flight::FlightOutcome;
use crate::engine::Engine;
use crate::error::DeadlineExceeded;
use crate::key::EntryKey;
use crate::observe::events::{Counters, Event, Table, bump};
use crate::observe::function_stats::{FunctionCounters, FunctionNumber};
use crate::observe::history::HistoryEvent;
use crate::options::LocalTier;
use crate::value::return_type::{Returns, ValueType};
use crate::value::rules::Rules;
use crate::value::{Erased, drop_caught};
use crate::versions::snapshot::VersionSnapshot;

/// One call: its key, its type and its rules.
pub(crate) struct Plan {
    pub(crate) key: EntryKey,
    pub(crate) value: ValueType,
    pub(crate) rules: Arc<Rules>,
    pub(crate) local: LocalTier,
    /// Run the function even if there is a value, and replace it.
    pub(crate) refresh: bool,
    /// Makes the function's own error from a passed deadline, if its error type allows it.
    pub(crate) overdue: Option<fn(DeadlineExceeded) -> Erased>,
    /// Where the function finds the old value, which it may keep.
    pub(crate) old: Option<Arc<OldValue>>,
    /// The function's future owns everything it uses, and may outlive its caller.
    pub(crate) owned: bool,
    /// The key of the lease if the value is plain, that is shared with other programs.
    pub(crate) plain: Option<EntryKey>,
    /// The number of the function, once it is known.
    pub(crate) number: OnceLock<FunctionNumber>,
}

/// A counter of a function and of its cache.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tally {
    Hits,
    Misses,
    Computes,
    ComputeErrors,
    Fills,
    Renewed,
    RefusedFills,
    Stale,
    Refreshes,
    Joined,
    Waited,
}

impl Tally {
    fn of_function(self, counters: &FunctionCounters) -> &AtomicU64 {
        match self {
            Self::Hits => &counters.hits,
            Self::Misses => &counters.misses,
            Self::Computes => &counters.computes,
            Self::ComputeErrors => &counters.compute_errors,
            Self::Fills => &counters.fills,
            Self::Renewed => &counters.renewed,
            Self::RefusedFills => &counters.refused_fills,
            Self::Stale => &counters.stale,
            Self::Refreshes => &counters.refreshes,
            Self::Joined => &counters.joined,
            Self::Waited => &counters.waited,
        }
    }

    /// Returns the counter of the cache. `None`: it is counted when the event is emitted.
    fn of_cache(self, counters: &Counters) -> Option<&AtomicU64> {
        Some(match self {
            Self::Hits => &counters.hits,
            Self::Misses => &counters.misses,
            Self::Computes => &counters.computes,
            Self::ComputeErrors => &counters.compute_errors,
            Self::Fills => &counters.fills,
            Self::Renewed => &counters.renewed,
            Self::RefusedFills | Self::Stale => return None,
            Self::Refreshes => &counters.refreshes,
            Self::Joined => &counters.joined,
            Self::Waited => &counters.waited,
        })
    }
}

impl Plan {
    pub(crate) fn new(key: EntryKey, value: ValueType, rules: Arc<Rules>, local: LocalTier) -> Self {
        Self {
            key,
            value,
            rules,
            local,
            refresh: false,
            overdue: None,
            old: None,
            owned: false,
            plain: None,
            number: OnceLock::new(),
        }
    }

    /// Adds a step to the key's history, counts it for the function and its cache, and emits its
    /// event.
    pub(crate) fn observed(&self, engine: &Engine, what: HistoryEvent) {
        self.note(engine, what);
        let tally = match what {
            HistoryEvent::RunBegan => Tally::Computes,
            HistoryEvent::RunFailed { .. } | HistoryEvent::DeadlinePassed => Tally::ComputeErrors,
            HistoryEvent::Filled { .. } => Tally::Fills,
            HistoryEvent::Renewed { .. } => Tally::Renewed,
            HistoryEvent::FillRefused(_) => Tally::RefusedFills,
            HistoryEvent::StaleServed(_) => Tally::Stale,
            HistoryEvent::RefreshBegan => Tally::Refreshes,
            HistoryEvent::Waited => Tally::Waited,
            HistoryEvent::RefreshFailed | HistoryEvent::RefreshSkipped => return self.emit_event_of(engine, what),
            _ => return,
        };
        self.count(engine, tally);
        self.emit_event_of(engine, what);
    }

    /// Emits the event of a step, if it has one.
    fn emit_event_of(&self, engine: &Engine, what: HistoryEvent) {
        let name = || Arc::clone(&self.key.name);
        engine.events.emit(match what {
            HistoryEvent::DeadlinePassed => Event::DeadlinePassed { name: name() },
            HistoryEvent::FillRefused(_) => Event::FillRefused { name: name() },
            HistoryEvent::StaleServed(cause) => Event::StaleServed { name: name(), cause },
            HistoryEvent::RefreshFailed => Event::RefreshFailed { name: name() },
            HistoryEvent::RefreshSkipped => Event::RefreshSkipped { name: name() },
            _ => return,
        });
    }

    /// Only adds a step to the key's history. For the ids of a batch, which is counted once.
    pub(crate) fn note(&self, engine: &Engine, what: HistoryEvent) {
        engine.history.note(&self.key.value_key, what);
    }

    /// Counts for the function and for its cache.
    pub(crate) fn count(&self, engine: &Engine, tally: Tally) {
        let number = self.number();
        if number.is_one_of_others() {
            engine.events.table_full(Table::FunctionNames);
        }
        if let Some(of_cache) = tally.of_cache(engine.events.count()) {
            bump(of_cache);
        }
        if let Some(counters) = engine.functions.of(number) {
            bump(tally.of_function(counters));
        }
    }

    /// Returns the number of the function.
    pub(crate) fn number(&self) -> FunctionNumber {
        *self.number.get_or_init(|| FunctionNumber::of_name(&self.key.name))
    }

    /// Returns the versions that a value depends on, not read yet.
    pub(crate) fn basis(&self, engine: &Engine) -> VersionSnapshot {
        VersionSnapshot::new(&engine.versions, &self.key.name, self.number(), &self.rules)
    }

    pub(crate) fn terms(&self, engine: &Engine) -> StalenessPolicy {
        StalenessPolicy::new(&engine.defaults, &self.rules.options, self.owned)
    }
}

/// The expired value that a function is given before it runs. To keep it, the function returns this
/// same value.
pub(crate) type OldValue = Mutex<Option<Erased>>;

impl<R> Returns<R> {
    /// Converts the outcome of a run into what the caller gets.
    pub(crate) fn convert(self, outcome: FlightOutcome, name: &str) -> R {
        let returned = match outcome {
            FlightOutcome::Value(value) => {
                let returned = (self.of.ok)(&value);
                // Only the last caller drops it, and would lose its own copy by a panic (S10).
                drop_caught(value);
                returned
            }
            FlightOutcome::Failed(error) => (self.of.err)(error),
            FlightOutcome::Panicked(panic) => panic.resume(name),
            FlightOutcome::Abandoned => None,
        };
        #[expect(
            clippy::panic,
            reason = "flights are keyed by value type, and abandoned flights are led again; only a bug here leads to it"
        )]
        returned.unwrap_or_else(|| panic!("`{name}` returned a value of another type"))
    }
}
