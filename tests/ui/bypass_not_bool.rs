use cache_core::cached;

#[cached(bypass = id)]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
