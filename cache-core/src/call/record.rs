//! What is stored under a key, opened and judged: the one place that does so.

use std::sync::Arc;

use bytes::Bytes;

use crate::call::plan::Plan;
use crate::coordination::refresh::ServeWindow;
use crate::engine::Engine;
use crate::error::Result;
use crate::local::Mark;
use crate::observe::events::Event;
use crate::observe::history::{HistoryEvent, Scope};
use crate::value::Erased;
use crate::value::envelope::{Envelope, Unreadable};
use crate::versions::Dependencies;
use crate::versions::snapshot::{VersionCheck, VersionSnapshot};

/// What stored bytes are to this call.
pub(crate) enum Stored {
    /// A value that may be returned at once.
    Value(Served),
    /// A record past its time.
    Old(Old),
    /// A record from before an invalidation, with its fill id: never served again, however stale a value may be (R17). Without a scope: of an
    /// absence, where the function has none.
    Invalid(u64, Option<Scope>),
    /// A record under a fence on a tag of its value: not served now, and left where it is.
    Fenced,
    /// A record of a build that knows more, with its fill id: it stays until it is replaced, as one past its time.
    Newer(u64, &'static str),
    /// No record of this function.
    Foreign(&'static str),
}

/// A value that may be returned, and what is known of it.
pub(crate) struct Served {
    pub(crate) value: Erased,
    pub(crate) fill_id: u64,
    pub(crate) payload_bytes: usize,
    pub(crate) serving: ServeWindow,
    /// What L1 has to go by; `None`: it cannot.
    pub(crate) under: Option<Dependencies>,
}

/// What is past its time; a value if it may be fallen back on.
pub(crate) struct Old {
    pub(crate) fill_id: u64,
    pub(crate) value: Option<Erased>,
}

/// Takes a trip only for a record with tags that nothing is known of. `keeps`: the value may be kept
/// in L1.
pub(super) async fn decode(
    engine: &Engine,
    plan: &Plan,
    basis: &VersionSnapshot,
    bytes: &Bytes,
    keeps: bool,
) -> Result<Stored> {
    let (envelope, payload_at) = match Envelope::open(bytes, &plan.key.value_key) {
        Ok(opened) => opened,
        Err(Unreadable::Foreign(reason)) => return Ok(Stored::Foreign(reason)),
        Err(Unreadable::Newer(fill_id, reason)) => return Ok(Stored::Newer(fill_id, reason)),
    };
    Ok(match basis.agrees(&engine.versions, &envelope, keeps).await? {
        VersionCheck::Yes(under) => judge(engine, plan, &envelope, bytes.get(payload_at..).unwrap_or_default(), under),
        VersionCheck::No => Stored::Invalid(envelope.fill_id, Some(basis.ended_by(&envelope))),
        VersionCheck::Fenced => Stored::Fenced,
    })
}

/// Puts what was read into the history of its key.
pub(crate) fn noted(engine: &Engine, plan: &Plan, stored: Stored) -> Stored {
    let what = match &stored {
        Stored::Value(value) => HistoryEvent::Hit { fresh_for: value.serving.fresh() },
        Stored::Old(_) => HistoryEvent::Expired,
        Stored::Invalid(_, Some(scope)) => HistoryEvent::Outdated(*scope),
        Stored::Invalid(_, None) => HistoryEvent::Missed,
        Stored::Fenced => HistoryEvent::Fenced,
        Stored::Newer(_, reason) => {
            engine.events.emit(Event::Undecodable { name: Arc::clone(&plan.key.name), reason });
            HistoryEvent::Undecodable
        }
        Stored::Foreign(_) => HistoryEvent::Undecodable,
    };
    plan.observed(engine, what);
    stored
}

/// A record whose versions stand.
pub(crate) fn judge(
    engine: &Engine,
    plan: &Plan,
    envelope: &Envelope,
    payload: &[u8],
    under: Option<Dependencies>,
) -> Stored {
    let (now, fill_id) = (engine.store.now(), envelope.fill_id);
    let terms = plan.terms(engine);
    let serving = ServeWindow::of(envelope, &terms, now);
    if serving.is_none() && !terms.may_fall_back_on(envelope, now) {
        return Stored::Old(Old { fill_id, value: None });
    }
    match ((plan.value.decode)(envelope.codec, envelope.present, payload), serving) {
        (Ok(Some(value)), Some(serving)) => {
            Stored::Value(Served { value, fill_id, payload_bytes: payload.len(), serving, under })
        }
        (Ok(Some(value)), None) => Stored::Old(Old { fill_id, value: Some(value) }),
        // A function that always returns one shares its name with one that need not: to this call it is a miss.
        (Ok(None), _) => Stored::Invalid(fill_id, None),
        (Err(_), _) => Stored::Foreign("the payload is not a value of this type"),
    }
}

/// A value that was read, kept in L1 if it may be.
pub(super) fn kept(engine: &Engine, plan: &Plan, served: Served, mark: Option<Mark<'_>>) -> Hit {
    let Served { value, fill_id, payload_bytes, serving, under } = served;
    if let Some((mark, under)) = mark.zip(under) {
        mark.keep(&value, (plan.value.weigh)(&value, payload_bytes), serving.service(plan.local), under);
    }
    let is_resting = || engine.refreshes.is_resting(&plan.key.value_key, fill_id, engine.clock.coarse());
    Hit { value, due: (serving.is_due && !is_resting()).then_some(fill_id) }
}

/// A value to return; `due`: while the record with this fill id is computed anew.
pub(super) struct Hit {
    pub(super) value: Erased,
    pub(super) due: Option<u64>,
}
