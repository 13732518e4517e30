use cache_core::KeyPart;

#[derive(KeyPart)]
union Id {
    a: u32,
    b: i32,
}

fn main() {}
