use cache_core::cached;

#[derive(Clone)]
struct User(#[allow(dead_code)] u64);

#[cached]
async fn f(id: u64) -> User {
    User(id)
}

fn main() {}
