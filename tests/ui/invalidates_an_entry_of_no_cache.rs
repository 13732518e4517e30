use cache_core::{Cache, cached, invalidates};

#[cached(key = "{id}", skip(cache), cache = cache)]
async fn user(cache: &Cache, id: u64) -> u64 {
    let _ = cache;
    id
}

#[invalidates(user(id))]
async fn rename(id: u64) {}

fn main() {}
