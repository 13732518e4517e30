use cache_core::cached;

#[cached(name = "")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
