use cache_core::cached;

#[cached]
async fn f(id: u64) -> &'static str {
    if id == 0 { "a" } else { "b" }
}

fn main() {}
