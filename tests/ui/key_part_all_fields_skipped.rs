use cache_core::KeyPart;

#[derive(KeyPart)]
struct Page {
    #[key(skip)]
    trace: f64,
}

fn main() {}
