use std::collections::HashMap;

use cache_core::cached;

#[cached(batch)]
async fn f(ids: &[u64]) -> HashMap<u32, String> {
    ids.iter().map(|id| (*id as u32, id.to_string())).collect()
}

fn main() {}
