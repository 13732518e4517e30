use cache_core::cached;

#[cached(cache_if = |value| *value)]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
