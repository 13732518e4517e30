use cache_core::cached;

#[cached(stale_if_error = "1h", soft_timeout = "100ms")]
async fn f(name: &str) -> usize {
    name.len()
}

fn main() {}
