use cache_core::cached;

#[cached(deadline = "5s")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
