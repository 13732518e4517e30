use cache_core::{cached, invalidates};

#[cached]
#[invalidates(tag = "users")]
async fn f(id: u64) -> u64 {
    id
}

#[invalidates(tag = "users")]
#[cached]
async fn g(id: u64) -> u64 {
    id
}

fn main() {}
