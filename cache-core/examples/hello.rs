//! How is a function cached? `cargo run -p cache-core --example hello`
//!
//! With `CACHE_URL=redis://127.0.0.1/` the values are kept in Redis, and a second run of this
//! program computes nothing for an hour.

#![allow(clippy::print_stdout, clippy::arithmetic_side_effects, reason = "an example tells what it does")]

use std::time::Duration;

use cache_core::{Cache, cached};

/// Stands for a query that takes a while.
#[cached(ttl = "1h")]
async fn population(city: &str) -> usize {
    println!("asking the database for {city}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    city.len() * 100_000
}

#[tokio::main]
async fn main() -> Result<(), cache_core::Error> {
    Cache::install(Cache::from_env().await?)?;

    // Four callers at the same time share one compute.
    let callers = [population("Oslo"), population("Oslo"), population("Oslo"), population("Oslo")];
    println!("{:?}", futures::future::join_all(callers).await);
    // A later caller gets the cached value.
    println!("{}", population("Oslo").await);

    // After a change of the row: the next caller computes again.
    population::entry("Oslo").invalidate().await?;
    println!("{}", population("Oslo").await);

    let stats = Cache::global().stats();
    println!("{} computed, {} shared, {} from the cache", stats.computes, stats.joined, stats.hits + stats.local_hits);
    Ok(())
}
