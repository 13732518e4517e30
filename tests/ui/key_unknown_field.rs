use cache_core::cached;

struct User {
    id: u64,
}

#[cached(key = "{user.idd}")]
async fn f(user: User) -> u64 {
    user.id
}

fn main() {}
