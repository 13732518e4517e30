use cache_core::invalidates;

#[invalidates(tag = "users", limt = "1m", alway, ttl = 60)]
async fn f(_id: u64) {}

fn main() {}
