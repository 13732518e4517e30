// K5
use cache_core::cached;

#[cached]
async fn f(latitude: f64) -> u64 {
    latitude as u64
}

fn main() {}
