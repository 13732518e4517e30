use cache_core::cached;

#[cached(version = "3")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
