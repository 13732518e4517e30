//! How is code with cached functions tested?
//! `cargo test -p cache-core --features testing --example testing`

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used, reason = "an example")]

use cache_core::{Cache, cached};

/// Each test gives its own cache, so no test sees what another one stored.
#[cached(ttl = "1h", skip(cache), cache = cache)]
async fn doubled(cache: &Cache, n: u64) -> u64 {
    let _ = cache;
    n * 2
}

#[tokio::main]
async fn main() {
    doubled(&Cache::in_memory(), 7).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cache_core::clock::Clock;

    use super::*;

    #[tokio::test]
    async fn a_value_is_computed_once() {
        let cache = Cache::in_memory();
        assert_eq!((doubled(&cache, 7).await, doubled(&cache, 7).await), (14, 14));
        assert_eq!(cache.stats().computes, 1);
    }

    #[tokio::test]
    async fn after_its_ttl_it_is_computed_again() {
        let clock = Clock::manual();
        let cache = Cache::builder().clock(clock.clone()).in_memory();
        doubled(&cache, 7).await;
        clock.advance(Duration::from_secs(3601));
        doubled(&cache, 7).await;
        assert_eq!(cache.stats().computes, 2);
    }

    #[tokio::test]
    async fn an_invalidation_of_one_process_reaches_the_other() {
        let here = Cache::in_memory();
        // Two caches on one store behave like two processes on one Redis.
        let there = Cache::builder().share_store(&here).in_memory();
        doubled(&there, 7).await;
        doubled::entry(7).on(&here).invalidate().await.unwrap();
        assert_eq!(doubled::entry(7).on(&there).get().await.unwrap(), None);
    }
}
