use cache_core::cached;

#[cached(tags("row:{value}"))]
async fn f(value: u64) -> u64 {
    value
}

fn main() {}
