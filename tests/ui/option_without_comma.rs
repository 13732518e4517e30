use cache_core::cached;

#[cached(ttl = 60 name = "f")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
