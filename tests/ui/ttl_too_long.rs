use cache_core::cached;

#[cached(ttl = "99999999999999999w")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
