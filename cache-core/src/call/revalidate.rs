//! Values that their function may keep: "not modified" renews the times of a record and leaves its payload where it is.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::call::lifetime::Lifetime;
use crate::call::plan::Plan;
use crate::coordination::lease::{End, Lease};
use crate::engine::Engine;
use crate::error::Result;
use crate::observe::history::{HistoryEvent, Refusal};
use crate::store::{Replaces, Slot};
use crate::value::Erased;
use crate::value::envelope::Envelope;
use crate::versions::snapshot::{VersionCheck, VersionSnapshot};

/// The record that a refresh is to replace, and its value as the function was given it.
pub(super) struct StaleRecord {
    pub(super) value: Erased,
    envelope: Envelope,
    payload_at: usize,
    bytes: Bytes,
}

impl StaleRecord {
    /// Gives the function what stands beside the lease, if it asks for that. One round trip more.
    pub(super) async fn offer_old_value(
        engine: &Engine,
        plan: &Plan,
        lease: Option<&Lease>,
        basis: &VersionSnapshot,
    ) -> Option<Self> {
        let (asked, Replaces::Stale(fill_id)) = (plan.old.as_ref()?, lease?.over()) else { return None };
        let key = &plan.key.value_key;
        let bytes = match engine.store.read(key).await {
            Ok(Slot::Bytes(bytes)) => bytes,
            Ok(_) => return None,
            Err(error) => {
                engine.store_failed(&error);
                return None;
            }
        };
        let (envelope, payload_at) = Envelope::open(&bytes, key).ok()?;
        if envelope.fill_id != fill_id {
            return None;
        }
        // Renewed, it keeps the versions it names: those of this run, or it would be a miss for everybody.
        match basis.agrees(&engine.versions, &envelope, false).await {
            Ok(VersionCheck::Yes(_)) => {}
            Ok(VersionCheck::No | VersionCheck::Fenced) => return None,
            Err(error) => {
                engine.store_failed(&error);
                return None;
            }
        }
        let payload = bytes.get(payload_at..).unwrap_or_default();
        let value = (plan.value.decode)(envelope.codec, envelope.present, payload).ok()??;
        *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&value));
        Some(Self { value, envelope, payload_at, bytes })
    }

    /// The same value for another lifetime: only the header is sent. Guarded as a fill is.
    pub(super) async fn renew(
        mut self,
        engine: &Engine,
        plan: &Plan,
        lease: Lease,
        lifetime: Lifetime,
        cost: Duration,
    ) -> Result<()> {
        self.envelope.fill_id = crate::random::u64();
        self.envelope.created = engine.store.now();
        self.envelope.fresh_for = lifetime.fresh;
        self.envelope.stale_for = lifetime.stale;
        self.envelope.cost = cost;
        let Some(head) = self.envelope.head(&plan.key.value_key, &self.bytes, self.payload_at) else {
            return lease.release(End::Free).await;
        };
        let expiry = lifetime.expiry(plan.terms(engine), cost);
        if lease.rewrite_head(head.into(), expiry).await? {
            plan.observed(engine, HistoryEvent::Renewed { fresh_for: lifetime.fresh });
        } else {
            plan.observed(engine, HistoryEvent::FillRefused(Refusal::LeaseLost));
        }
        Ok(())
    }
}
