use cache_core::cached;

#[cached(local = true)]
async fn user(id: u64) -> u64 {
    id
}

fn main() {}
