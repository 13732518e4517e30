use cache_core::cached;

#[cached(local = |value| std::time::Duration::from_secs(*value))]
async fn user(id: u64) -> u64 {
    id
}

fn main() {}
