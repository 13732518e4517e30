use cache_core::cached;

#[cached(stale_if_error = |value| std::time::Duration::from_secs(*value))]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
