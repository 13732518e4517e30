use cache_core::KeyPart;

#[derive(KeyPart)]
enum Scope {
    All,
    #[key(skip)]
    Tenant(u32),
}

fn main() {}
