use cache_core::invalidates;

#[invalidates("users", 7, tags(users))]
async fn f(_id: u64) {}

fn main() {}
