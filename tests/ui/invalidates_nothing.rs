use cache_core::invalidates;

#[invalidates]
async fn f(_id: u64) {}

#[invalidates(always)]
async fn g(_id: u64) {}

fn main() {}
