use cache_core::cached;

#[cached(ttl = "5min")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
