//! Storing what a function returned: for how long, under which versions, as which bytes.
//!
//! Invariant: what an invalidation has ended meanwhile is not stored, and what is not stored gives its lease back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::call::lifetime::{Lifetime, lifetime_for};
use crate::call::plan::Plan;
use crate::call::revalidate::StaleRecord;
use crate::coordination::lease::{End, Lease};
use crate::coordination::refresh::ServeWindow;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::events::{Event, reason};
use crate::observe::history::{HistoryEvent, Refusal};
use crate::options::LocalTier;
use crate::store::Filled;
use crate::value::Erased;
use crate::value::codec::Finding;
use crate::value::envelope::Envelope;
use crate::versions::Dependencies;
use crate::versions::snapshot::{Under, VersionSnapshot};

/// Stores the value under the lease, or gives the lease back.
pub(super) async fn fill(
    engine: &Arc<Engine>,
    plan: &Plan,
    lease: Lease,
    basis: &VersionSnapshot,
    value: &Erased,
    cost: Duration,
    old: Option<StaleRecord>,
) -> Result<()> {
    let Some(lifetime) = lifetime_for(engine, plan, value) else {
        plan.observed(engine, HistoryEvent::NotStored);
        return lease.release(End::Unstored).await;
    };
    if let Some(old) = old
        && std::ptr::addr_eq(Arc::as_ptr(&old.value), Arc::as_ptr(value))
        && !basis.has_changed()
    {
        return old.renew(engine, plan, lease, lifetime, cost).await;
    }
    let Storable { record, expiry, fresh_for, kept_by } =
        match storable(engine, plan, basis, value, lifetime, cost).await? {
            Ok(storable) => storable,
            Err(end) => return lease.release(end).await,
        };
    let mark = engine.local.as_ref().filter(|_| plan.local != LocalTier::Off);
    let mark = mark.map(|local| local.begin(&plan.key.value_key));
    let bytes = record.len();
    match lease.fill(record, expiry, mark.is_some()).await? {
        Filled::Refused => {
            plan.observed(engine, HistoryEvent::FillRefused(Refusal::LeaseLost));
            return Ok(());
        }
        Filled::Stored => {}
        Filled::Tracked => {
            if let Some((mark, (serving, under))) = mark.zip(kept_by) {
                mark.keep(value, (plan.value.weigh)(value, bytes), serving.service(plan.local), under);
            }
        }
    }
    plan.observed(engine, HistoryEvent::Filled { fresh_for });
    Ok(())
}

/// A value as it is to be stored.
pub(crate) struct Storable {
    pub(crate) record: Bytes,
    pub(crate) expiry: Duration,
    /// How long it is fresh.
    pub(crate) fresh_for: Duration,
    /// What L1 needs to keep it too.
    pub(crate) kept_by: Option<(ServeWindow, Dependencies)>,
}

/// `Err`, with an event: the value is its callers' alone, and how its lease is to be given back. A trip if it has tags of its own.
pub(crate) async fn storable(
    engine: &Engine,
    plan: &Plan,
    basis: &VersionSnapshot,
    value: &Erased,
    lifetime: Lifetime,
    cost: Duration,
) -> Result<Result<Storable, End>> {
    // Stored all the same, it would be a miss for everybody.
    let under = match basis.has_changed() {
        true => None,
        false => basis.of_value(&engine.versions, &plan.key.name, &plan.rules, value).await?,
    };
    let Some(mut under) = under else {
        plan.observed(engine, HistoryEvent::FillRefused(Refusal::Outdated));
        // The next run is stored: it begins after the invalidation.
        return Ok(Err(End::Free));
    };
    let dependencies = under.dependencies.take();
    let fresh_for = lifetime.fresh;
    let sealed = seal(engine, plan, value, under, lifetime, cost);
    if sealed.is_none() {
        plan.observed(engine, HistoryEvent::NotStored);
    }
    let storable =
        |Sealed { record, expiry, serving }| Storable { record, expiry, fresh_for, kept_by: serving.zip(dependencies) };
    Ok(sealed.map(storable).ok_or(End::Unstored))
}

/// The record of a value; `None`, with an event, if it cannot be stored.
fn seal(
    engine: &Engine,
    plan: &Plan,
    value: &Erased,
    under: Under,
    lifetime: Lifetime,
    cost: Duration,
) -> Option<Sealed> {
    match try_seal(engine, plan, value, under, lifetime, cost) {
        Ok(sealed) => Some(sealed),
        Err(error) => {
            // Too large is told with its size, where that is known.
            if error.kind() != ErrorKind::Limit {
                let name = Arc::clone(&plan.key.name);
                engine.events.emit(Event::EncodeFailed { name, reason: reason(&error) });
            }
            None
        }
    }
}

/// A record and how long it is kept.
pub(crate) struct Sealed {
    pub(crate) record: Bytes,
    pub(crate) expiry: Duration,
    serving: Option<ServeWindow>,
}

/// The record of a value.
pub(crate) fn try_seal(
    engine: &Engine,
    plan: &Plan,
    value: &Erased,
    under: Under,
    lifetime: Lifetime,
    cost: Duration,
) -> Result<Sealed> {
    let envelope = Envelope {
        codec: plan.value.codec_id,
        present: (plan.value.is_present)(value),
        fill_id: crate::random::u64(),
        created: engine.store.now(),
        fresh_for: lifetime.fresh,
        stale_for: lifetime.stale,
        cost,
        versions: under.versions,
        tags: under.tags,
    };
    let mut found = |finding| {
        let (type_name, codec) = ((plan.value.type_name)(), plan.value.codec_name);
        engine.events.emit(match finding {
            Finding::Replaced => Event::CodecReplaced { type_name, codec },
            Finding::Differs => Event::ReadBackDiffers { type_name },
        });
    };
    let record = envelope.seal(&plan.key.value_key, |out| (plan.value.encode)(value, out, &mut found))?;
    let max = engine.limits.max_value_bytes;
    if record.len() > max {
        engine.events.emit(Event::TooLarge { name: Arc::clone(&plan.key.name), bytes: record.len() });
        let detail = format!(
            "the encoded value has {} bytes, the limit is {max}; see `CacheBuilder::max_value_bytes`",
            record.len()
        );
        return Err(Error::new(ErrorKind::Limit, "encode").detail(detail));
    }
    let terms = plan.terms(engine);
    Ok(Sealed {
        record: record.into(),
        expiry: lifetime.expiry(terms, cost),
        serving: ServeWindow::of(&envelope, &terms, envelope.created),
    })
}
