use cache_core::invalidates;

#[invalidates("users", 7, tags(users))]
async fn f(id: u64) {}

fn main() {}
