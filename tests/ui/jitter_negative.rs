use cache_core::cached;

#[cached(jitter = -0.1)]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
