use std::collections::HashMap;

use cache_core::cached;

#[cached(batch, key = "{tenant}")]
async fn f(tenant: u32, ids: &[u64]) -> HashMap<u64, String> {
    ids.iter().map(|id| (*id, tenant.to_string())).collect()
}

#[cached(batch(ids), skip(ids))]
async fn g(ids: &[u64]) -> HashMap<u64, String> {
    ids.iter().map(|id| (*id, id.to_string())).collect()
}

fn main() {}
