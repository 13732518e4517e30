use cache_core::cached;

#[cached(early = 1.0, batch)]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
