use cache_core::cached;

#[cached(ttl, name)]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
