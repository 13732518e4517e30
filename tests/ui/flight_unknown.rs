use cache_core::cached;

#[cached(flight = "procces")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
