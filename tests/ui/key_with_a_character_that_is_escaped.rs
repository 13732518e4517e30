use cache_core::cached;

#[cached(key = "user {id}, {{x}}")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
