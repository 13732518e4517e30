//! Revalidation: a "not modified" renews the times of a record and leaves its payload in the store.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::call::lifetime::Lifetime;
use crate::call::plan::Plan;
use crate::call::record::{Opened, open};
use crate::coordination::lease::{End, Lease};
use crate::engine::Engine;
use crate::error::Result;
use crate::observe::history::{HistoryEvent, Refusal};
use crate::store::{Replaces, Slot};
use crate::value::Erased;
use crate::value::envelope::Envelope;
use crate::versions::snapshot::{VersionCheck, VersionSnapshot};

/// The record that a refresh will replace, and its value as it was given to the function.
pub(super) struct StaleRecord {
    pub(super) value: Erased,
    envelope: Envelope,
    payload_at: usize,
    bytes: Bytes,
}

impl StaleRecord {
    /// Gives the function the old value, if it asks for it. One more round trip.
    pub(super) async fn offer_old_value(
        engine: &Engine,
        plan: &Plan,
        lease: Option<&Lease>,
        basis: &VersionSnapshot,
    ) -> Option<Self> {
        let (asked, Replaces::Stale(fill_id)) = (plan.old.as_ref()?, lease?.over()) else { return None };
        let key = &plan.key.value_key;
        let slot = match engine.store.read(key).await {
            Ok(slot) => slot,
            Err(error) => {
                engine.store_failed(&error);
                return None;
            }
        };
        let (Slot::Bytes(bytes), Opened::Record { envelope, payload }) = (&slot, open(&slot, key)) else { return None };
        if envelope.fill_id != fill_id {
            return None;
        }
        // A renewed record keeps its versions. If they are not those of this run, each read would
        // be a miss.
        match basis.agrees(&engine.versions, &envelope, false).await {
            Ok(VersionCheck::Yes(_)) => {}
            Ok(VersionCheck::No | VersionCheck::Fenced) => return None,
            Err(error) => {
                engine.store_failed(&error);
                return None;
            }
        }
        let value = (plan.value.decode)(envelope.codec, envelope.present, &payload).ok()??;
        *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&value));
        let payload_at = bytes.len().saturating_sub(payload.len());
        Some(Self { value, envelope, payload_at, bytes: bytes.clone() })
    }

    /// Stores the same value with a new lifetime. Only the header is sent. Guarded like a fill.
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
