use cache_core::cached;

#[cached(key = "{id}", skip(id))]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
