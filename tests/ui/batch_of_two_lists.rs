use std::collections::HashMap;

use cache_core::cached;

#[cached(batch)]
async fn f(ids: &[u64], labels: Vec<String>) -> HashMap<u64, String> {
    ids.iter().map(|id| (*id, labels.concat())).collect()
}

fn main() {}
