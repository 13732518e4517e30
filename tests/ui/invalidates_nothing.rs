use cache_core::invalidates;

#[invalidates]
async fn f(id: u64) {}

#[invalidates(always)]
async fn g(id: u64) {}

fn main() {}
