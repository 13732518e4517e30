use cache_core::cached;

#[cached(early = "1h")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
