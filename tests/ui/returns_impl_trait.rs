use cache_core::cached;

#[cached]
async fn f(id: u64) -> impl Iterator<Item = u64> {
    0..id
}

fn main() {}
