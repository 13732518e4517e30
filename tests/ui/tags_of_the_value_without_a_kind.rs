use cache_core::cached;

#[cached(tags("{value}", "x-{value}"))]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
