use cache_core::cached;

#[cached(skip(pool))]
async fn f(#[cached(skip)] pool: &str, id: u64) -> String {
    format!("{pool}{id}")
}

fn main() {}
