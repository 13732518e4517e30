use cache_core::cached;

struct Point {
    x: f64,
}

#[cached(key = "{point.x}")]
async fn f(point: &Point) -> u64 {
    point.x as u64
}

fn main() {}
