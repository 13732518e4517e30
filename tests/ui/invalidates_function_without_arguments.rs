use cache_core::{cached, invalidates};

#[cached]
async fn user(id: u64) -> u64 {
    id
}

#[invalidates(user)]
async fn rename(_id: u64) {}

fn main() {}
