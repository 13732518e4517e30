use cache_core::cached;

#[cached(codec = "mesgpack")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
