use std::collections::HashMap;

use cache_core::cached;

#[cached(batch)]
async fn f(id: u64) -> HashMap<u64, String> {
    HashMap::from([(id, id.to_string())])
}

fn main() {}
