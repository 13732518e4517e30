use std::collections::HashMap;

use cache_core::cached;

struct Db;

#[cached(batch, skip(db))]
async fn f(db: Db, ids: &[u64]) -> HashMap<u64, String> {
    let _ = db;
    ids.iter().map(|id| (*id, id.to_string())).collect()
}

fn main() {}
