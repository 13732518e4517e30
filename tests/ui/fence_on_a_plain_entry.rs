use cache_core::{Cache, cached};

#[cached(plain = "user:{id}", ttl = 60, skip(cache), cache = cache)]
async fn user(cache: &Cache, id: u64) -> u64 {
    let _ = cache;
    id
}

fn rename(cache: &Cache) {
    let _ = cache.fence().entry(&user::entry(7).on(cache));
}

fn main() {}
