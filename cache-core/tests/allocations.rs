//! The allocations of the local tier: a hit allocates nothing beyond the clone of the value, and an
//! entry little.
//!
//! One test in its own program, since memory is measured for the whole process.

#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

use std::sync::Arc;

use cache_core::{Cache, cached};
use futures::FutureExt as _;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[cached]
async fn shared(id: u64) -> Arc<String> {
    Arc::new(format!("post {id}"))
}

#[cached]
async fn shared_or_error(name: &str, page: u32) -> Result<Arc<Vec<u64>>, std::io::Error> {
    Ok(Arc::new(vec![u64::from(page); name.len()]))
}

#[cached]
async fn number(id: u64) -> u64 {
    id
}

#[cached]
async fn maybe(id: u64) -> Option<u64> {
    Some(id)
}

#[cached]
async fn text(id: u64) -> String {
    format!("post {id}")
}

/// Returns the peak of the bytes allocated while this ran.
fn allocated<T>(run: impl FnOnce() -> T) -> usize {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = run();
    let peak = ALLOCATOR.peak_usage();
    drop(result);
    peak.saturating_sub(before)
}

#[test]
fn a_local_entry_is_small_and_a_hit_allocates_only_the_clone_of_its_value() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let overhead = overhead_of_an_entry(&runtime);
    assert!((100..150).contains(&overhead), "{overhead} bytes for each entry");
    let cache = Cache::in_memory();
    Cache::install(cache.clone()).expect("the first");
    runtime.block_on(async {
        // Computed, then read from the store into L1, then served from L1.
        for _ in 0..3 {
            shared(7).await;
            shared_or_error("rust", 7).await.expect("a value");
            number(7).await;
            maybe(7).await;
            text(7).await;
        }
        let hits = cache.stats().local_hits;
        for _ in 0..100 {
            assert_eq!(allocated(|| shared(7).now_or_never().expect("at hand")), 0, "value in Arc");
            let or_error = || shared_or_error("rust", 7).now_or_never().expect("at hand");
            assert_eq!(allocated(or_error), 0, "value in Arc, text key");
            assert_eq!(allocated(|| number(7).now_or_never().expect("at hand")), 0, "number");
            assert_eq!(allocated(|| maybe(7).now_or_never().expect("at hand")), 0, "optional number");
        }
        assert_eq!(cache.stats().local_hits - hits, 400);
        // Checks that the measurement works at all.
        assert_eq!(allocated(|| text(7).now_or_never().expect("at hand")), "post 7".len());
    });
}

/// Returns the memory that the local tier takes per entry, beyond the value and the number that is
/// its key.
fn overhead_of_an_entry(runtime: &tokio::runtime::Runtime) -> usize {
    const ENTRIES: usize = 20_000;
    let taken = |local_limit_bytes| {
        let cache = Cache::builder().local_limit_bytes(local_limit_bytes).in_memory();
        runtime.block_on(async {
            // Allocations at first use do not count.
            of(&cache, u64::MAX).await;
            let before = ALLOCATOR.current_usage();
            // Computed, then read from the store into L1.
            for id in (0..ENTRIES as u64).chain(0..ENTRIES as u64) {
                of(&cache, id).await;
            }
            ALLOCATOR.current_usage() - before
        })
    };
    // The value is a reference-counted pointer to eight bytes.
    (taken(64 << 20) - taken(0)) / ENTRIES - size_of::<[u64; 3]>() - size_of::<u64>()
}

#[cached(skip(cache), cache = cache)]
async fn of(cache: &Cache, id: u64) -> u64 {
    let _ = cache;
    id
}
