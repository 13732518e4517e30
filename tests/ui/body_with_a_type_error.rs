use cache_core::cached;

#[cached]
async fn f(id: u64) -> u64 {
    let name: String = id;
    name.len()
}

fn main() {}
