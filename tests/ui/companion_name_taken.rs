use cache_core::cached;

mod user {}

#[cached]
async fn user(id: u64) -> u64 {
    id
}

fn main() {}
