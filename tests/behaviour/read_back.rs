//! A type whose values do not survive a round trip is reported if its values can be compared.

use std::sync::Arc;

use cache_core::events::Event;
use cache_core::{Cache, EntryOptions, Key, cached};
use serde::{Deserialize, Serialize};

/// Returns the names of the reported types.
async fn told(call: impl AsyncFn(&Cache, u64)) -> Vec<&'static str> {
    let cache = Cache::in_memory();
    let mut events = cache.subscribe();
    for id in 0..20 {
        call(&cache, id).await;
    }
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::ReadBackDiffers { type_name } = event {
            told.push(type_name);
        }
    }
    told
}

macro_rules! value {
    ($name:ident, [$($derive:ident),*], $(#[$skip:meta])?) => {
        #[derive(Debug, Clone, Serialize, Deserialize, $($derive),*)]
        struct $name {
            id: u64,
            $(#[$skip])?
            note: String,
        }

        impl $name {
            fn new(id: u64) -> Self {
                Self { id, note: format!("note {id}") }
            }
        }
    };
}

value!(Skips, [PartialEq], #[serde(skip)]);
value!(SkipsInArc, [PartialEq], #[serde(skip)]);
value!(SkipsInOption, [PartialEq], #[serde(skip)]);
value!(SkipsInResult, [PartialEq], #[serde(skip)]);
value!(SkipsInBatch, [PartialEq], #[serde(skip)]);
value!(Right, [PartialEq],);
value!(NotComparable, [], #[serde(skip)]);
value!(ByHand, [PartialEq], #[serde(skip)]);

#[cached(ttl = 60, skip(cache), cache = cache)]
async fn skips(cache: &Cache, id: u64) -> Skips {
    Skips::new(id)
}

#[cached(ttl = 60, skip(cache), cache = cache, codec = "json")]
async fn skips_in_arc(cache: &Cache, id: u64) -> Arc<SkipsInArc> {
    Arc::new(SkipsInArc::new(id))
}

#[cached(ttl = 60, skip(cache), cache = cache)]
async fn skips_in_option(cache: &Cache, id: u64) -> Option<SkipsInOption> {
    Some(SkipsInOption::new(id))
}

#[cached(ttl = 60, skip(cache), cache = cache, single_flight = "none")]
async fn skips_in_result(cache: &Cache, id: u64) -> Result<Vec<SkipsInResult>, String> {
    Ok(vec![SkipsInResult::new(id)])
}

#[cached(batch, ttl = 60, skip(cache), cache = cache)]
async fn skips_in_batch(cache: &Cache, ids: &[u64]) -> Vec<(u64, SkipsInBatch)> {
    ids.iter().map(|id| (*id, SkipsInBatch::new(*id))).collect()
}

#[cached(ttl = 60, skip(cache), cache = cache)]
async fn right(cache: &Cache, id: u64) -> Right {
    Right::new(id)
}

#[cached(ttl = 60, skip(cache), cache = cache)]
async fn not_comparable(cache: &Cache, id: u64) -> NotComparable {
    NotComparable::new(id)
}

/// Not equal to anything, not even to itself.
#[cached(ttl = 60, skip(cache), cache = cache)]
async fn not_a_number(cache: &Cache, id: u64) -> (u64, f64) {
    (id, f64::NAN)
}

#[tokio::test]
// V9
async fn a_type_with_a_skipped_field_is_reported_once_at_its_first_writes() {
    use std::any::type_name;
    assert_eq!(told(async |cache, id| drop(skips(cache, id).await)).await, [type_name::<Skips>()]);
    let read = skips(&Cache::in_memory(), 1).await;
    assert_eq!(read.note, "note 1", "the first caller gets what the function returned");
    assert_eq!(told(async |cache, id| drop(skips_in_arc(cache, id).await)).await, [type_name::<Arc<SkipsInArc>>()]);
    assert_eq!(told(async |cache, id| drop(skips_in_option(cache, id).await)).await, [type_name::<SkipsInOption>()]);
    let in_result = told(async |cache, id| drop(skips_in_result(cache, id).await)).await;
    assert_eq!(in_result, [type_name::<Vec<SkipsInResult>>()]);
    let in_batch = told(async |cache, id| drop(skips_in_batch(cache, &[id, id + 100]).await)).await;
    assert_eq!(in_batch, [type_name::<SkipsInBatch>()]);
}

#[tokio::test]
// V9
async fn types_that_round_trip_or_cannot_be_compared_are_not_reported() {
    assert_eq!(told(async |cache, id| drop(right(cache, id).await)).await, [""; 0]);
    let not_comparable = async |cache: &Cache, id| assert_eq!(not_comparable(cache, id).await.id, id);
    assert_eq!(told(not_comparable).await, [""; 0]);
    assert_eq!(NotComparable::new(1).note, "note 1");
    assert_eq!(told(async |cache, id| assert!(not_a_number(cache, id).await.1.is_nan())).await, [""; 0]);
    let by_hand = async |cache: &Cache, id: u64| {
        let compute = || async { Ok::<_, String>(ByHand::new(id)) };
        cache.get_or_compute(Key::new("by hand").part(&id), &EntryOptions::new(), compute).await.unwrap();
    };
    assert_eq!(told(by_hand).await, [""; 0], "its type has not been checked yet");
}
