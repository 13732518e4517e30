//! Opens and judges what a key holds. Every path that reads a record does it here.
//!
//! ```text
//! slot ── open ─> a record ── its versions are checked ── judge ─> Stored
//!             └─> anything else ────────────────────────────────> Stored
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::call::plan::Plan;
use crate::clock::Timestamp;
use crate::coordination::refresh::{ServeWindow, StalenessPolicy};
use crate::engine::Engine;
use crate::error::Result;
use crate::local::PendingFill;
use crate::observe::events::Event;
use crate::observe::history::{HistoryEvent, Scope};
use crate::options::LocalTier;
use crate::store::{Slot, Token};
use crate::value::Erased;
use crate::value::envelope::{Envelope, Unreadable};
use crate::value::return_type::ValueType;
use crate::versions::Dependencies;
use crate::versions::snapshot::{VersionCheck, VersionSnapshot};

/// What the content of a key means for this call.
pub(crate) enum Stored {
    /// Nothing.
    Absent,
    /// A run with this token stored nothing a moment ago.
    Unstored(Token),
    /// Another caller computes the value; its lease ends after this time.
    Leased(Option<Duration>),
    /// The same, but other callers do not wait for it.
    Unawaited(Option<Duration>),
    /// A value that may be returned at once.
    Value(Served),
    /// A record past its lifetime.
    Old(Old),
    /// A record from before an invalidation, with its fill id. It is never served again, not even
    /// as a stale value (R17). Without a scope: an absent value, and the function always returns
    /// one.
    Invalid(u64, Option<Scope>),
    /// The key, or a tag of its record, is fenced. The record is not served now, and stays in the
    /// store.
    Fenced,
    /// A record of a newer build, with its fill id. It stays until it is replaced, like an expired
    /// one.
    Newer(u64, &'static str),
    /// Not a record of this function.
    Foreign(&'static str),
}

/// A value that may be returned, with its metadata.
pub(crate) struct Served {
    pub(crate) value: Erased,
    pub(crate) fill_id: u64,
    pub(crate) payload_bytes: usize,
    pub(crate) serving: ServeWindow,
    /// The versions that L1 must check. `None`: L1 cannot keep the value.
    pub(crate) under: Option<Dependencies>,
}

/// A record past its lifetime. The value is present if it may serve as a fallback.
pub(crate) struct Old {
    pub(crate) fill_id: u64,
    pub(crate) value: Option<Erased>,
}

/// A record whose versions are not checked yet, or what else a key holds.
pub(crate) enum Opened {
    Record { envelope: Envelope, payload: Bytes },
    Other(Stored),
}

impl Opened {
    /// Returns the header if it is a record.
    pub(crate) fn envelope(&self) -> Option<&Envelope> {
        match self {
            Self::Record { envelope, .. } => Some(envelope),
            Self::Other(_) => None,
        }
    }
}

/// Opens the content of a key.
pub(crate) fn open(slot: &Slot, key: &str) -> Opened {
    Opened::Other(match slot {
        Slot::Bytes(bytes) => match Envelope::open(bytes, key) {
            Ok((envelope, payload_at)) => {
                let payload = bytes.slice(payload_at.min(bytes.len())..);
                return Opened::Record { envelope, payload };
            }
            Err(Unreadable::Foreign(reason)) => Stored::Foreign(reason),
            Err(Unreadable::Newer(fill_id, reason)) => Stored::Newer(fill_id, reason),
        },
        Slot::Absent => Stored::Absent,
        Slot::Unstored(mark) => Stored::Unstored(*mark),
        Slot::Leased(left) => Stored::Leased(*left),
        Slot::Unawaited(left) => Stored::Unawaited(*left),
        Slot::Fenced => Stored::Fenced,
        Slot::WrongType => Stored::Foreign("the key holds a value of another type"),
    })
}

/// Opens and judges the content of a key. One round trip only if it is a record with tags of
/// unknown versions.
///
/// `keeps`: L1 may keep the value.
pub(crate) async fn read(
    engine: &Engine,
    plan: &Plan,
    basis: &VersionSnapshot,
    slot: &Slot,
    keeps: bool,
) -> Result<Stored> {
    let (envelope, payload) = match open(slot, &plan.key.value_key) {
        Opened::Record { envelope, payload } => (envelope, payload),
        Opened::Other(stored) => return Ok(stored),
    };
    let check = basis.agrees(&engine.versions, &envelope, keeps).await?;
    Ok(judge_checked(engine, plan, basis, (&envelope, &payload), check, engine.store.now()))
}

/// Judges a record whose versions are checked.
pub(crate) fn judge_checked(
    engine: &Engine,
    plan: &Plan,
    basis: &VersionSnapshot,
    (envelope, payload): (&Envelope, &[u8]),
    check: VersionCheck,
    now: Timestamp,
) -> Stored {
    match check {
        VersionCheck::Yes(under) => judge(&plan.value, &plan.terms(engine), now, envelope, payload, under),
        VersionCheck::No => Stored::Invalid(envelope.fill_id, Some(basis.ended_by(envelope))),
        VersionCheck::Fenced => Stored::Fenced,
    }
}

/// Judges a record whose versions are current.
pub(crate) fn judge(
    value: &ValueType,
    terms: &StalenessPolicy,
    now: Timestamp,
    envelope: &Envelope,
    payload: &[u8],
    under: Option<Dependencies>,
) -> Stored {
    let fill_id = envelope.fill_id;
    let serving = ServeWindow::of(envelope, terms, now);
    if serving.is_none() && !terms.may_fall_back_on(envelope, now) {
        return Stored::Old(Old { fill_id, value: None });
    }
    match ((value.decode)(envelope.codec, envelope.present, payload), serving) {
        (Ok(Some(value)), Some(serving)) => {
            Stored::Value(Served { value, fill_id, payload_bytes: payload.len(), serving, under })
        }
        (Ok(Some(value)), None) => Stored::Old(Old { fill_id, value: Some(value) }),
        // The stored value is absent, but this function always returns a value. A function of the
        // same name may return `None`. For this call it is a miss.
        (Ok(None), _) => Stored::Invalid(fill_id, None),
        (Err(_), _) => Stored::Foreign("the payload is not a value of this type"),
    }
}

/// Adds a read to the history of its key.
pub(crate) fn noted(engine: &Engine, plan: &Plan, stored: Stored) -> Stored {
    let what = match &stored {
        Stored::Absent | Stored::Invalid(_, None) => HistoryEvent::Missed,
        Stored::Unstored(_) => HistoryEvent::NotAwaited,
        Stored::Unawaited(_) if !plan.refresh => HistoryEvent::NotAwaited,
        Stored::Leased(_) | Stored::Unawaited(_) => return stored,
        Stored::Value(value) => HistoryEvent::Hit { fresh_for: value.serving.fresh() },
        Stored::Old(_) => HistoryEvent::Expired,
        Stored::Invalid(_, Some(scope)) => HistoryEvent::Outdated(*scope),
        Stored::Fenced => HistoryEvent::Fenced,
        Stored::Newer(_, reason) => {
            undecodable(engine, plan, reason);
            HistoryEvent::Undecodable
        }
        Stored::Foreign(_) => HistoryEvent::Undecodable,
    };
    plan.observed(engine, what);
    stored
}

/// Emits the event of a key whose content cannot be used.
pub(crate) fn undecodable(engine: &Engine, plan: &Plan, reason: &'static str) {
    engine.events.emit(Event::Undecodable { name: Arc::clone(&plan.key.name), reason });
}

impl Served {
    /// Stores the value in L1, if it may be kept there.
    pub(crate) fn keep(&mut self, value_type: &ValueType, tier: LocalTier, mark: Option<PendingFill<'_>>) {
        if let Some((mark, under)) = mark.zip(self.under.take()) {
            let weight = (value_type.weigh)(&self.value, self.payload_bytes);
            mark.keep(&self.value, weight, self.serving.service(tier), under);
        }
    }
}

/// Stores a value that was read in L1, if it may be kept there.
pub(super) fn kept(engine: &Engine, plan: &Plan, mut served: Served, mark: Option<PendingFill<'_>>) -> Hit {
    served.keep(&plan.value, plan.local, mark);
    let Served { value, fill_id, serving, .. } = served;
    let is_cooling_down = || engine.refreshes.is_cooling_down(&plan.key.value_key, fill_id, engine.clock.coarse());
    Hit { value, due: (serving.is_due && !is_cooling_down()).then_some(fill_id) }
}

/// A value to return. `due`: the record with this fill id needs a refresh.
pub(super) struct Hit {
    pub(super) value: Erased,
    pub(super) due: Option<u64>,
}
