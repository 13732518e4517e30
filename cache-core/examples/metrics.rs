//! How do the counters of a cache get into a metrics system of your own?
//! `cargo run -p cache-core --example metrics`

#![allow(clippy::print_stdout, clippy::arithmetic_side_effects, reason = "an example tells what it does")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cache_core::events::Event;
use cache_core::{Cache, cached};

#[cached(ttl = "1h")]
async fn square(n: u64) -> u64 {
    n * n
}

#[tokio::main]
async fn main() -> Result<(), cache_core::Error> {
    // Events, as they happen. The observer must be fast: it runs where the event happens.
    let faults = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&faults);
    let observer = move |event: &Event| {
        if matches!(event, Event::StoreFailed { .. } | Event::Disconnected { .. }) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    };
    Cache::install(Cache::builder().on_event(observer).connect_from_env().await?)?;
    for n in [1, 2, 3, 1, 2, 1] {
        square(n).await;
    }

    // Counters, whenever the metrics are read. They only ever rise.
    let (all, faults) = (Cache::global().stats(), faults.load(Ordering::Relaxed));
    println!("cache_hits_total{{tier=\"local\"}} {}", all.local_hits);
    println!("cache_hits_total{{tier=\"store\"}} {}", all.hits);
    println!("cache_misses_total {}", all.misses);
    println!("cache_faults_total {faults}");
    for function in Cache::global().function_stats() {
        println!("cache_computes_total{{function=\"{}\"}} {}", function.name, function.computes);
    }
    Ok(())
}
