use cache_core::cached;

#[cached(skip(pool, pool))]
async fn f(pool: &str, id: u64) -> String {
    format!("{pool}{id}")
}

fn main() {}
