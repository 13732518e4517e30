use cache_core::KeyPart;

#[derive(KeyPart)]
#[key(skip)]
struct Page(u32);

fn main() {}
