use cache_core::cached;

#[cached]
async fn f(id: u64) {
    let _ = id;
}

fn main() {}
