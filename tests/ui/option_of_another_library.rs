use cache_core::cached;

#[cached(time = 60, prefix = "user")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
