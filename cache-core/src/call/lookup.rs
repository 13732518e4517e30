//! The fast path of a call: a value that is found without waiting.

use std::sync::Arc;

use crate::coordination::refresh::{Serving, Terms};
use crate::engine::Engine;
use crate::local::{Hit, LocalKeyRef, ParsedKey};
use crate::observe::events::bump;
use crate::observe::function_stats::FunctionNumber;
use crate::observe::history::What;
use crate::options::{EntryOptions, LocalTier};
use crate::store::Slot;
use crate::value::Erased;
use crate::value::envelope::Envelope;
use crate::value::return_type::ValueType;
use crate::versions::snapshot::{Agreement, Basis};

/// What [`Engine::at_hand`] comes to.
pub(crate) enum AtHand<T> {
    /// To be returned.
    Value(T),
    /// To be returned, while the record with this fill id is computed anew.
    Due(T, u64),
    /// Left to the pipeline.
    Nothing,
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
    pub(crate) fn at_hand<T>(
        &self,
        key: &Arc<str>,
        name: &str,
        value: &ValueType,
        options: Option<(&EntryOptions, bool)>,
        tier: LocalTier,
        take: impl Fn(&Erased) -> Option<T>,
    ) -> AtHand<T> {
        let local = self.local.is_some().then(|| ParsedKey::parse(key));
        match local.and_then(|local| self.in_local(&local.as_ref(), || FunctionNumber::by_hand(name), &take)) {
            Some(Hit::Fresh(value)) => AtHand::Value(value),
            Some(Hit::Due(value, fill_id)) => self.due(key, value, fill_id),
            None => self.at_hand_in_store(key, name, value, options, tier, take),
        }
    }

    /// The same where L1 has been looked at.
    pub(crate) fn at_hand_in_store<T>(
        &self,
        key: &Arc<str>,
        name: &str,
        value: &ValueType,
        options: Option<(&EntryOptions, bool)>,
        tier: LocalTier,
        take: impl Fn(&Erased) -> Option<T>,
    ) -> AtHand<T> {
        match options {
            Some((options, owned)) if self.store.is_at_hand() => {
                self.in_store(key, name, value, &Terms::new(&self.defaults, options, owned), tier, take)
            }
            _ => AtHand::Nothing,
        }
    }

    /// One refresh is enough: while it runs, and after it failed, the value is a value like any other.
    pub(crate) fn due<T>(&self, key: &str, value: T, fill_id: u64) -> AtHand<T> {
        if self.refreshes.is_resting(key, fill_id, self.clock.coarse()) {
            return AtHand::Value(value);
        }
        AtHand::Due(value, fill_id)
    }

    fn in_store<T>(
        &self,
        key: &Arc<str>,
        name: &str,
        value: &ValueType,
        terms: &Terms,
        tier: LocalTier,
        take: impl Fn(&Erased) -> Option<T>,
    ) -> AtHand<T> {
        // Before the read, as anywhere else: another thread may write in between.
        let local = self.local.as_ref().filter(|_| tier != LocalTier::Off);
        let mark = local.map(|local| local.begin(key));
        let Some(Slot::Bytes(bytes)) = self.store.read_now(key) else { return AtHand::Nothing };
        let Ok((envelope, payload_at)) = Envelope::open(&bytes, key) else { return AtHand::Nothing };
        // All records of a store in this process are of one build, so they have the tags they need.
        let number = FunctionNumber::by_hand(name);
        let agreement =
            Basis::untagged(&self.versions, name, number).agrees_now(&self.versions, &envelope, mark.is_some());
        let Some(Agreement::Yes(under)) = agreement else { return AtHand::Nothing };
        let Some(serving) = Serving::of(&envelope, terms, self.store.now()) else { return AtHand::Nothing };
        let payload = bytes.get(payload_at..).unwrap_or_default();
        let decoded = (value.decode)(envelope.codec, envelope.present, payload);
        let Ok(Some(decoded)) = decoded else { return AtHand::Nothing };
        let Some(taken) = take(&decoded) else { return AtHand::Nothing };
        if let Some((mark, under)) = mark.zip(under) {
            mark.keep(&decoded, (value.weigh)(&decoded, payload.len()), serving.service(tier), under);
        }
        bump(&self.events.count().hits);
        if let Some(counters) = self.functions.of(number) {
            bump(&counters.hits);
        }
        self.history.note(key, What::Hit { fresh_for: serving.fresh() });
        if serving.is_due {
            return self.due(key, taken, envelope.fill_id);
        }
        AtHand::Value(taken)
    }
}
