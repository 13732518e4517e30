use cache_core::invalidates;

#[invalidates(tag, tags = "users", tags(), all, cache, limit = , always = true)]
async fn f(_id: u64) {}

fn main() {}
