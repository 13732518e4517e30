use cache_core::cached;

#[cached(ttl = std::time::Duration::from_secs(id))]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
