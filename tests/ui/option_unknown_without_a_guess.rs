use cache_core::cached;

#[cached(colour = "red")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
