use cache_core::cached;

#[cached(bypass = |id| id == 0)]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
