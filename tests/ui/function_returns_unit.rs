use cache_core::cached;

#[cached]
async fn send(id: u64) -> () {
    let _ = id;
}

fn main() {}
