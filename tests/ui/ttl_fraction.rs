use cache_core::cached;

#[cached(ttl = 1.5, negative_ttl = "1.5h")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
