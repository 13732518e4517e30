use cache_core::cached;

#[cached(skip())]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
