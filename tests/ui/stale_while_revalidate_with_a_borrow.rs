use cache_core::cached;

struct Db;

#[cached(skip(db), stale_while_revalidate = "1h")]
async fn f(db: &Db, id: u64) -> u64 {
    let _ = db;
    id
}

fn main() {}
