// K5
use cache_core::cached;

struct Pool;

#[cached]
async fn f(db: &Pool, id: u64) -> u64 {
    let _ = db;
    id
}

fn main() {}
