//! The fast path of a call: returns a value without waiting.

use std::sync::Arc;
use std::time::Duration;

use crate::call::record::{Opened, judge, open};
use crate::call::verdict::{Request, Verdict, decide};
use crate::coordination::refresh::StalenessPolicy;
use crate::engine::Engine;
use crate::local::{Hit, LocalKeyRef, ParsedKey};
use crate::observe::events::bump;
use crate::observe::function_stats::FunctionNumber;
use crate::observe::history::HistoryEvent;
use crate::options::{EntryOptions, LocalTier};
use crate::value::return_type::ValueType;
use crate::value::{Erased, drop_caught};
use crate::versions::snapshot::{VersionCheck, VersionSnapshot};

/// The result of [`Engine::lookup`].
pub(crate) enum Lookup<T> {
    /// Return this value.
    Hit(T),
    /// Return this value, and refresh the record with this fill id.
    HitRefresh(T, u64),
    /// Continue with the slow path.
    Miss,
}

impl Engine {
    /// Fast path: returns the value from L1 if it is fresh and no refresh can be due.
    #[inline(always)]
    pub(crate) fn in_local_plain<T>(
        &self,
        key: &LocalKeyRef<'_>,
        function: impl FnOnce() -> FunctionNumber,
        take: impl FnOnce(&Erased) -> Option<T>,
    ) -> Option<T> {
        let hit = self.local.as_ref()?.get_plain(key, take)?;
        self.functions.local_hit(function());
        Some(hit)
    }

    /// Returns the value from L1, fresh or due for a refresh.
    pub(crate) fn in_local<T>(
        &self,
        key: &LocalKeyRef<'_>,
        function: impl FnOnce() -> FunctionNumber,
        take: impl FnOnce(&Erased) -> Option<T>,
    ) -> Option<Hit<T>> {
        let hit = self.local.as_ref()?.get(key, take)?;
        self.functions.local_hit(function());
        Some(hit)
    }

    /// Returns the value if it can be read without waiting: from L1, or from a store that reads
    /// synchronously. Anything unusual is a miss, and the slow path handles it.
    ///
    /// `options`: the function's options, if known, and whether its future owns everything it uses.
    pub(crate) fn lookup<T>(
        &self,
        key: &Arc<str>,
        name: &str,
        value: &ValueType,
        options: Option<(&EntryOptions, bool)>,
        tier: LocalTier,
        take: impl Fn(&Erased) -> Option<T>,
    ) -> Lookup<T> {
        let local = self.local.is_some().then(|| ParsedKey::parse(key));
        match local.and_then(|local| self.in_local(&local.as_ref(), || FunctionNumber::of_name(name), &take)) {
            Some(Hit::Fresh(value)) => Lookup::Hit(value),
            Some(Hit::Due(value, fill_id)) => self.due(key, value, fill_id),
            None => self.lookup_store(key, name, value, options, tier, take),
        }
    }

    /// Like [`lookup`](Self::lookup), without a look at L1.
    pub(crate) fn lookup_store<T>(
        &self,
        key: &Arc<str>,
        name: &str,
        value: &ValueType,
        options: Option<(&EntryOptions, bool)>,
        tier: LocalTier,
        take: impl Fn(&Erased) -> Option<T>,
    ) -> Lookup<T> {
        match options {
            Some((options, owned)) if self.store.reads_synchronously() => {
                self.in_store(key, name, value, &StalenessPolicy::new(&self.defaults, options, owned), tier, take)
            }
            _ => Lookup::Miss,
        }
    }

    /// Decides whether a due value needs a refresh. While one runs in this process, and for a while
    /// after one has failed, the value is a plain hit.
    pub(crate) fn due<T>(&self, key: &str, value: T, fill_id: u64) -> Lookup<T> {
        if self.refreshes.is_cooling_down(key, fill_id, self.clock.coarse()) {
            return Lookup::Hit(value);
        }
        Lookup::HitRefresh(value, fill_id)
    }

    fn in_store<T>(
        &self,
        key: &Arc<str>,
        name: &str,
        value: &ValueType,
        terms: &StalenessPolicy,
        tier: LocalTier,
        take: impl Fn(&Erased) -> Option<T>,
    ) -> Lookup<T> {
        // Before the read, because another thread may write in between.
        let local = self.local.as_ref().filter(|_| tier != LocalTier::Off);
        let mark = local.map(|local| local.begin(key));
        let Some(slot) = self.store.read_now(key) else { return Lookup::Miss };
        let Opened::Record { envelope, payload } = open(&slot, key) else { return Lookup::Miss };
        // All records of a store in this process are from one build, so they have the required
        // tags.
        let number = FunctionNumber::of_name(name);
        let check = VersionSnapshot::untagged(&self.versions, name, number).agrees_now(
            &self.versions,
            &envelope,
            mark.is_some(),
        );
        let Some(VersionCheck::Yes(under)) = check else { return Lookup::Miss };
        // An expired record is a miss here, so its value is not decoded.
        let terms = StalenessPolicy { window: Duration::ZERO, ..*terms };
        let stored = judge(value, &terms, self.store.now(), &envelope, &payload, under);
        let Verdict::Serve(mut served) = decide(Request::HIT, stored, |_| None) else { return Lookup::Miss };
        let Some(taken) = take(&served.value) else { return Lookup::Miss };
        served.keep(value, tier, mark);
        let serving = served.serving;
        // Its destructor is user code, and the caller has its copy (S10).
        drop_caught(served.value);
        bump(&self.events.count().hits);
        if let Some(counters) = self.functions.of(number) {
            bump(&counters.hits);
        }
        self.history.note(key, HistoryEvent::Hit { fresh_for: serving.fresh() });
        if serving.is_due {
            return self.due(key, taken, envelope.fill_id);
        }
        Lookup::Hit(taken)
    }
}
