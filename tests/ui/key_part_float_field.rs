use cache_core::KeyPart;

#[derive(KeyPart)]
struct Point {
    x: f64,
    y: u8,
}

fn main() {}
