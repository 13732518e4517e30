use cache_core::cached;

#[cached(invalidates = 1, batch)]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
