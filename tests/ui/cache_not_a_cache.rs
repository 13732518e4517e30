use cache_core::cached;

#[cached(cache = id, skip(id))]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
