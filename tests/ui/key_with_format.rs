use cache_core::cached;

#[cached(key = "{id:04}")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
