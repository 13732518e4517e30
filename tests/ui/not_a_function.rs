use cache_core::cached;

#[cached(ttl = 60)]
struct User {
    id: u64,
}

fn main() {
    let _user = User { id: 1 };
}
