//! The fast path of a call: a value that is found without waiting.

use std::sync::Arc;

use crate::coordination::refresh::{ServeWindow, StalenessPolicy};
use crate::engine::Engine;
use crate::local::{Hit, LocalKeyRef, ParsedKey};
use crate::observe::events::bump;
use crate::observe::function_stats::FunctionNumber;
use crate::observe::history::HistoryEvent;
use crate::options::{EntryOptions, LocalTier};
use crate::store::Slot;
use crate::value::Erased;
use crate::value::envelope::Envelope;
use crate::value::return_type::ValueType;
use crate::versions::snapshot::{VersionCheck, VersionSnapshot};

/// What [`Engine::lookup`] comes to.
pub(crate) enum Lookup<T> {
    /// To be returned.
    Hit(T),
    /// To be returned, while the record with this fill id is computed anew.
    HitRefresh(T, u64),
    /// Left to the pipeline.
    Miss,
}

impl Engine {
    /// The value, if it is in L1 and may be served without a thought.
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

    /// The value, if it is in L1.
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

    /// The value, if it is at hand: in L1, or in a store that can tell without waiting. Whatever is wrong with it is left to
    /// the pipeline. `options`: the function's, as far as they are known, and whether its future owns what it needs.
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

    /// The same where L1 has been looked at.
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

    /// One refresh is enough: while it runs, and after it failed, the value is a value like any other.
    pub(crate) fn due<T>(&self, key: &str, value: T, fill_id: u64) -> Lookup<T> {
        if self.refreshes.is_resting(key, fill_id, self.clock.coarse()) {
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
        // Before the read, as anywhere else: another thread may write in between.
        let local = self.local.as_ref().filter(|_| tier != LocalTier::Off);
        let mark = local.map(|local| local.begin(key));
        let Some(Slot::Bytes(bytes)) = self.store.read_now(key) else { return Lookup::Miss };
        let Ok((envelope, payload_at)) = Envelope::open(&bytes, key) else { return Lookup::Miss };
        // All records of a store in this process are of one build, so they have the tags they need.
        let number = FunctionNumber::of_name(name);
        let agreement = VersionSnapshot::untagged(&self.versions, name, number).agrees_now(
            &self.versions,
            &envelope,
            mark.is_some(),
        );
        let Some(VersionCheck::Yes(under)) = agreement else { return Lookup::Miss };
        let Some(serving) = ServeWindow::of(&envelope, terms, self.store.now()) else { return Lookup::Miss };
        let payload = bytes.get(payload_at..).unwrap_or_default();
        let decoded = (value.decode)(envelope.codec, envelope.present, payload);
        let Ok(Some(decoded)) = decoded else { return Lookup::Miss };
        let Some(taken) = take(&decoded) else { return Lookup::Miss };
        if let Some((mark, under)) = mark.zip(under) {
            mark.keep(&decoded, (value.weigh)(&decoded, payload.len()), serving.service(tier), under);
        }
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
