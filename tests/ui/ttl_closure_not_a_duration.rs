use cache_core::cached;

#[cached(ttl = |value| *value)]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
