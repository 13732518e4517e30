use cache_core::cached;

#[cached("1d")]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
