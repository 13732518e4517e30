use cache_core::cached;

#[cached(name = "user:posts")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
