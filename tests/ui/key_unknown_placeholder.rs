use cache_core::cached;

#[cached(key = "user:{user_id}/{idd}")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
