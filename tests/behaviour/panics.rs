//! Panics of user code beside the function: `Clone` and `Drop` of its value, and the closures and
//! the `Serialize` of batches and of plain keys.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cache_core::{Cache, cached};
use futures::FutureExt as _;
use serde::{Deserialize, Serialize, Serializer};
use support::{Gate, Nodes, on_both_stores, soon};

use super::runs::all_of;

const CALLERS: u64 = 40;

/// The value of a test's store, with panics of its own.
fn value_of(nodes: &Nodes) -> u32 {
    u32::from(matches!(nodes, Nodes::Redis(_)))
}

static CLONE_PANICS: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unclonable(u32);

impl Clone for Unclonable {
    fn clone(&self) -> Self {
        assert!(!CLONE_PANICS[self.0 as usize].load(Ordering::SeqCst), "a Clone that panics");
        Self(self.0)
    }
}

#[cached(ttl = 60, skip(cache, gate), cache = &cache)]
async fn unclonable(cache: Cache, gate: Gate, id: u32, value: u32) -> Unclonable {
    let _ = (&cache, id);
    gate.pass().await;
    Unclonable(value)
}

#[cached(ttl = 60, skip(cache, gate), cache = cache)]
async fn borrowed_unclonable(cache: &Cache, gate: &Gate, id: u32, value: u32) -> Unclonable {
    let _ = (cache, id);
    gate.pass().await;
    Unclonable(value)
}

#[cached(batch, ttl = 60, skip(cache, gate, value), cache = cache)]
async fn unclonable_batch(cache: &Cache, gate: &Gate, value: u32, ids: &[u32]) -> HashMap<u32, Unclonable> {
    let _ = cache;
    gate.pass().await;
    ids.iter().map(|id| (*id, Unclonable(value))).collect()
}

static DROP_PANICS: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
static DROPS: AtomicU32 = AtomicU32::new(0);

/// `Drop` panics, unless another panic unwinds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Undroppable(u32);

impl Drop for Undroppable {
    fn drop(&mut self) {
        if DROP_PANICS[self.0 as usize].load(Ordering::SeqCst) && !std::thread::panicking() {
            DROPS.fetch_add(1, Ordering::SeqCst);
            panic!("a Drop that panics");
        }
    }
}

#[cached(ttl = 60, local = false, skip(cache, gate), cache = &cache)]
async fn undroppable(cache: Cache, gate: Gate, id: u32, value: u32) -> Undroppable {
    let _ = (&cache, id);
    gate.pass().await;
    Undroppable(value)
}

#[cached(ttl = 60, local = false, skip(cache, gate), cache = cache)]
async fn borrowed_undroppable(cache: &Cache, gate: &Gate, id: u32, value: u32) -> Undroppable {
    let _ = (cache, id);
    gate.pass().await;
    Undroppable(value)
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Unwritable(u32);

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("a Serialize that panics");
    }
}

#[cached(batch, ttl = |_: &u32| -> Duration { panic!("a ttl that panics") }, skip(cache, gate), cache = cache)]
async fn batch_with_ttl(cache: &Cache, gate: &Gate, ids: &[u32]) -> HashMap<u32, u32> {
    let _ = cache;
    gate.pass().await;
    ids.iter().map(|id| (*id, *id)).collect()
}

#[cached(batch, ttl = 60, version = 1, skip(cache, gate), cache = cache)]
async fn unwritable_batch(cache: &Cache, gate: &Gate, ids: &[u32]) -> HashMap<u32, Unwritable> {
    let _ = cache;
    gate.pass().await;
    ids.iter().map(|id| (*id, Unwritable(*id))).collect()
}

#[cached(plain = "panics:ttl:{id}", ttl = |_: &u32| -> Duration { panic!("a ttl that panics") }, skip(cache, gate), cache = cache)]
async fn plain_with_ttl(cache: &Cache, gate: &Gate, id: u32) -> u32 {
    let _ = cache;
    gate.pass().await;
    id
}

#[cached(plain = "panics:unwritable:{id}", ttl = 60, skip(cache, gate), cache = cache)]
async fn unwritable_plain(cache: &Cache, gate: &Gate, id: u32) -> Unwritable {
    let _ = cache;
    gate.pass().await;
    Unwritable(id)
}

/// Returns the value of a call, or the text of its panic.
async fn outcome<T>(call: impl Future<Output = T>) -> Result<T, String> {
    let payload = match AssertUnwindSafe(call).catch_unwind().await {
        Ok(value) => return Ok(value),
        Err(payload) => payload,
    };
    let text = payload.downcast_ref::<String>().cloned();
    Err(text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

on_both_stores! {
    // S10
    async fn a_clone_that_panics_reaches_its_caller_and_hangs_no_other(nodes: &Nodes) {
        let (cache, gate, value) = (nodes.node().await, Gate::shut(), value_of(nodes));
        CLONE_PANICS[value as usize].store(true, Ordering::SeqCst);
        let owned = all_of(&cache, &gate, CALLERS, || outcome(unclonable(cache.clone(), gate.clone(), 1, value))).await;
        let borrowed = all_of(&cache, &gate, CALLERS, || {
            let (cache, gate) = (cache.clone(), gate.clone());
            async move { outcome(borrowed_unclonable(&cache, &gate, 2, value)).await }
        });
        let borrowed = borrowed.await;
        let in_batch = all_of(&cache, &gate, CALLERS, || {
            let (cache, gate) = (cache.clone(), gate.clone());
            async move { outcome(unclonable_batch(&cache, &gate, value, &[3])).await.map(|mut found| found.remove(&3).unwrap()) }
        });
        let in_batch = in_batch.await;
        for outcomes in [owned, borrowed, in_batch] {
            assert!(outcomes.iter().any(Result::is_err), "one value is shared by all of them");
            for outcome in outcomes {
                match outcome {
                    Ok(found) => assert_eq!(found, Unclonable(value)),
                    Err(text) => assert!(text.contains("a Clone that panics"), "{text}"),
                }
            }
        }
        CLONE_PANICS[value as usize].store(false, Ordering::SeqCst);
        // Every key is free, and its value was stored.
        assert_eq!(soon("owned", unclonable(cache.clone(), gate.clone(), 1, value)).await, Unclonable(value));
        assert_eq!(soon("borrowed", borrowed_unclonable(&cache, &gate, 2, value)).await, Unclonable(value));
        assert_eq!(soon("a batch", unclonable_batch(&cache, &gate, value, &[3])).await[&3], Unclonable(value));
        assert_eq!(gate.runs(), 3);
    }

    // S10
    async fn a_drop_that_panics_outside_of_the_local_tier_costs_no_caller_its_value(nodes: &Nodes) {
        let (cache, gate, value) = (nodes.node().await, Gate::shut(), value_of(nodes));
        DROP_PANICS[value as usize].store(true, Ordering::SeqCst);
        let before = DROPS.load(Ordering::SeqCst);
        let mut all = Vec::new();
        // What a caller gets is its own to drop.
        all.extend(all_of(&cache, &gate, CALLERS, || undroppable(cache.clone(), gate.clone(), 1, value).map(ManuallyDrop::new)).await);
        let borrowed = all_of(&cache, &gate, CALLERS, || {
            let (cache, gate) = (cache.clone(), gate.clone());
            async move { ManuallyDrop::new(borrowed_undroppable(&cache, &gate, 2, value).await) }
        });
        all.extend(borrowed.await);
        // Read from the store.
        for _ in 0..3 {
            all.push(ManuallyDrop::new(soon("a hit", undroppable(cache.clone(), gate.clone(), 1, value)).await));
        }
        assert!(all.iter().all(|found| found.0 == value));
        assert_eq!(gate.runs(), 2);
        assert!(DROPS.load(Ordering::SeqCst) > before, "the library has dropped some");
        DROP_PANICS[value as usize].store(false, Ordering::SeqCst);
    }

    // S10
    async fn a_panic_beside_a_batch_costs_no_caller_its_values(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::shut());
        let values = all_of(&cache, &gate, CALLERS, || {
            let (cache, gate) = (cache.clone(), gate.clone());
            async move { batch_with_ttl(&cache, &gate, &[1]).await[&1] }
        });
        assert_eq!(values.await, [1; CALLERS as usize]);
        let values = all_of(&cache, &gate, CALLERS, || {
            let (cache, gate) = (cache.clone(), gate.clone());
            async move { unwritable_batch(&cache, &gate, &[2]).await.remove(&2) }
        });
        assert_eq!(values.await, vec![Some(Unwritable(2)); CALLERS as usize]);
        assert_eq!(gate.runs(), 2);
    }

    // S10
    async fn a_panic_beside_a_plain_key_costs_no_caller_its_value(nodes: &Nodes) {
        let (cache, gate) = (nodes.node().await, Gate::shut());
        let values = all_of(&cache, &gate, CALLERS, || {
            let (cache, gate) = (cache.clone(), gate.clone());
            async move { plain_with_ttl(&cache, &gate, 1).await }
        });
        assert_eq!(values.await, [1; CALLERS as usize]);
        let values = all_of(&cache, &gate, CALLERS, || {
            let (cache, gate) = (cache.clone(), gate.clone());
            async move { unwritable_plain(&cache, &gate, 2).await }
        });
        assert_eq!(values.await, vec![Unwritable(2); CALLERS as usize]);
        assert_eq!(gate.runs(), 2);
    }
}
