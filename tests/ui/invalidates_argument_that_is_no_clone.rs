use cache_core::{KeyPart, cached, invalidates};

#[derive(KeyPart)]
struct Id(u64);

#[cached]
async fn user(id: Id) -> u64 {
    id.0
}

#[invalidates(user(id))]
async fn rename(id: Id) {
    drop(id);
}

fn main() {}
