use cache_core::cached;

#[cached(tags(posts, 7))]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
