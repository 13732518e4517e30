use cache_core::cached;

#[cached(name = "user{id}")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
