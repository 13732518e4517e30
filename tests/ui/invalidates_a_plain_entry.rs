use cache_core::{Cache, cached, invalidates};

#[cached(plain = "user:{id}", ttl = 60, skip(cache), cache = cache)]
async fn user(cache: &Cache, id: u64) -> u64 {
    let _ = cache;
    id
}

#[cached(plain = "page:{id}", ttl = 60)]
async fn page(id: u64) -> u64 {
    id
}

#[invalidates(user(id), cache = cache)]
async fn rename(cache: &Cache, id: u64) {}

#[invalidates(page(id))]
async fn write(id: u64) {}

#[invalidates(all(page))]
async fn write_all() {}

fn main() {}
