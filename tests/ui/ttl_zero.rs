use cache_core::cached;

#[cached(ttl = 0, negative_ttl = "0s")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
