use cache_core::cached;

#[cached]
async fn f(#[cached(ttl = 60)] id: u64) -> u64 {
    id
}

fn main() {}
