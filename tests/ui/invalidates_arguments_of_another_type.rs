use cache_core::{cached, invalidates};

#[cached]
async fn user(id: u64) -> u64 {
    id
}

#[invalidates(user(name))]
async fn rename(name: String) {}

#[invalidates(user())]
async fn rename_all() {}

fn main() {}
