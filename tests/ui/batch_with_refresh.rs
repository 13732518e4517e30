use std::collections::HashMap;

use cache_core::cached;

#[cached(batch, stale_while_revalidate = "1h", early = 2.0, soft_timeout = "1s", refresh = "caller")]
async fn f(ids: &[u64]) -> HashMap<u64, String> {
    ids.iter().map(|id| (*id, id.to_string())).collect()
}

fn main() {}
