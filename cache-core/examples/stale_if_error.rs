//! What do callers get while the database is down?
//! `cargo run -p cache-core --features testing --example stale_if_error`

#![allow(clippy::print_stdout, clippy::arithmetic_side_effects, reason = "an example tells what it does")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cache_core::clock::Clock;
use cache_core::{Cache, cached};

#[derive(Debug, Clone)]
struct DatabaseIsDown;

static IS_DOWN: AtomicBool = AtomicBool::new(false);

/// Fresh for ten minutes. After that it is computed again, and for a day the old value is served if
/// that fails.
#[cached(ttl = "10m", stale_if_error = "1d")]
async fn price(id: u64) -> Result<u64, DatabaseIsDown> {
    if IS_DOWN.load(Ordering::SeqCst) { Err(DatabaseIsDown) } else { Ok(id * 100) }
}

#[tokio::main]
async fn main() -> Result<(), cache_core::Error> {
    // A clock that the program moves. Leave it out for the real time.
    let clock = Clock::manual();
    let observed = |event: &cache_core::events::Event| println!("  event: {event:?}");
    let cache = Cache::builder().clock(clock.clone()).on_event(observed).in_memory();
    Cache::install(cache)?;

    println!("computed: {:?}", price(7).await);
    IS_DOWN.store(true, Ordering::SeqCst);
    println!("fresh: {:?}", price(7).await);
    clock.advance(Duration::from_secs(20 * 60));
    println!("ten minutes after its end: {:?}", price(7).await);
    clock.advance(Duration::from_secs(2 * 86_400));
    println!("two days later: {:?}", price(7).await);
    Ok(())
}
