//! One call: what is asked for, and by which rules.

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
use crate::value::Erased;
use crate::value::return_type::{Returns, ValueType};
use crate::value::rules::Rules;
use crate::versions::snapshot::VersionSnapshot;

/// One call: what is asked for, and by which rules.
pub(crate) struct Plan {
    pub(crate) key: EntryKey,
    pub(crate) value: ValueType,
    pub(crate) rules: Arc<Rules>,
    pub(crate) local: LocalTier,
    /// Run the function even if a value stands, and replace it.
    pub(crate) refresh: bool,
    /// Makes the function's own error of a passed deadline, if there is a way.
    pub(crate) overdue: Option<fn(DeadlineExceeded) -> Erased>,
    /// Where the function looks for the value that it may keep.
    pub(crate) old: Option<Arc<OldValue>>,
    /// The function's future owns what it needs, and may go on without its caller.
    pub(crate) owned: bool,
    /// The key of the lease, where the value is plain: shared with other programs.
    pub(crate) plain: Option<EntryKey>,
    /// That of the function, if it is known or was asked for.
    pub(crate) number: OnceLock<FunctionNumber>,
}

/// What is counted of a function, and of its cache.
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

    /// `None`: its event counts.
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

    /// Notes a step in the key's history, counts it for the function and its cache, and emits its event.
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

    /// Emits the event that goes with a step, if there is one.
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

    /// Notes a step in the key's history only: of one id among those of a batch, which count once.
    pub(crate) fn note(&self, engine: &Engine, what: HistoryEvent) {
        engine.history.note(&self.key.value_key, what);
    }

    /// Counts for the function, and for its cache.
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

    /// That of its function.
    pub(crate) fn number(&self) -> FunctionNumber {
        *self.number.get_or_init(|| FunctionNumber::of_name(&self.key.name))
    }

    /// What a value of it depends on; nothing is read yet.
    pub(crate) fn basis(&self, engine: &Engine) -> VersionSnapshot {
        VersionSnapshot::new(&engine.versions, &self.key.name, self.number(), &self.rules)
    }

    pub(crate) fn terms(&self, engine: &Engine) -> StalenessPolicy {
        StalenessPolicy::new(&engine.defaults, &self.rules.options, self.owned)
    }
}

/// The value past its time that a function is given before it runs. It returns this very value to keep it.
pub(crate) type OldValue = Mutex<Option<Erased>>;

impl<R> Returns<R> {
    /// What the caller gets of a run.
    pub(crate) fn land(self, landing: FlightOutcome, name: &str) -> R {
        let returned = match landing {
            FlightOutcome::Value(value) => (self.of.ok)(&value),
            FlightOutcome::Failed(error) => (self.of.err)(error),
            FlightOutcome::Panicked(panic) => panic.resume(name),
            FlightOutcome::Abandoned => None,
        };
        #[expect(
            clippy::panic,
            reason = "flights are told apart by value type, and abandoned ones are led anew; only a bug here leads to it"
        )]
        returned.unwrap_or_else(|| panic!("a run of `{name}` came to a value of another type"))
    }
}
