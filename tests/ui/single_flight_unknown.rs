use cache_core::cached;

#[cached(single_flight = "procces")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
