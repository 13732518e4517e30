use cache_core::cached;

#[cached(stale_while_revalidate = "1h", soft_timeout = "100ms", refresh = "caller")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
