use cache_core::cached;

#[cached(stale_while_revalidate = "1h", refresh = "callers")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
