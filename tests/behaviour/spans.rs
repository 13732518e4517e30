//! A run carries the `tracing` span of the caller that started it.

use cache_core::{Cache, cached};
use support::soon;
use tracing::Instrument as _;
use tracing::subscriber::DefaultGuard;

fn collect_spans() -> DefaultGuard {
    tracing::subscriber::set_default(tracing_subscriber::registry())
}

/// Returns the name of the span that is entered here.
fn here() -> Option<String> {
    tracing::Span::current().metadata().map(|metadata| metadata.name().to_owned())
}

#[cached(ttl = 60, skip(cache), cache = &cache)]
async fn owned(cache: Cache, id: u32) -> Option<String> {
    let _ = id;
    tokio::task::yield_now().await;
    here()
}

#[cached(ttl = 60, skip(cache), cache = cache)]
async fn borrowed(cache: &Cache, id: u32) -> Option<String> {
    let _ = (cache, id);
    tokio::task::yield_now().await;
    here()
}

#[tokio::test]
// S11
async fn a_run_belongs_to_the_span_of_the_caller_that_began_it() {
    let _collected = collect_spans();
    let cache = Cache::in_memory();
    for id in 0..2 {
        let (first, second) = (tracing::info_span!("first"), tracing::info_span!("second"));
        let calls = async {
            match id {
                0 => tokio::join!(
                    owned(cache.clone(), id).instrument(first),
                    owned(cache.clone(), id).instrument(second)
                ),
                _ => tokio::join!(borrowed(&cache, id).instrument(first), borrowed(&cache, id).instrument(second)),
            }
        };
        assert_eq!(soon("both return", calls).await, (Some("first".to_owned()), Some("first".to_owned())));
    }
    assert_eq!(cache.stats().computes, 2);
}
