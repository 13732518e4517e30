use std::collections::HashMap;

use cache_core::cached;

#[cached(batch(id))]
async fn f(id: u64) -> HashMap<u64, String> {
    HashMap::from([(id, id.to_string())])
}

#[cached(batch(idz), key = "{ids}")]
async fn g(ids: &[u64]) -> HashMap<u64, String> {
    ids.iter().map(|id| (*id, id.to_string())).collect()
}

#[cached(batch = "ids")]
async fn h(ids: &[u64]) -> HashMap<u64, String> {
    ids.iter().map(|id| (*id, id.to_string())).collect()
}

fn main() {}
