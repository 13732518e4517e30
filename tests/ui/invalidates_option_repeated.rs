use cache_core::invalidates;

#[invalidates(tag = "users", tag = "users", limit = "1m", limit = "2m")]
async fn f(_id: u64) {}

fn main() {}
