use cache_core::cached;

const SECONDS: u64 = 60;

#[cached(ttl = SECONDS)]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
