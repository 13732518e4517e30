use cache_core::cached;

#[cached(negative_ttl = |value| value.ttl())]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
