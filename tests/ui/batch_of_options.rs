use std::collections::HashMap;

use cache_core::cached;

#[cached(batch)]
async fn f(ids: &[u64]) -> HashMap<u64, Option<String>> {
    ids.iter().map(|id| (*id, None)).collect()
}

#[cached(batch)]
async fn g(ids: &[u64]) -> HashMap<u64, Result<String, std::fmt::Error>> {
    ids.iter().map(|id| (*id, Err(std::fmt::Error))).collect()
}

fn main() {}
