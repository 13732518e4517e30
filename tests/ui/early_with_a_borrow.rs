use cache_core::cached;

#[cached(early = 2.0)]
async fn f(name: &str) -> usize {
    name.len()
}

fn main() {}
