use cache_core::invalidates;

#[invalidates(tag = "users", limit = 0)]
async fn f(_id: u64) {}

fn main() {}
