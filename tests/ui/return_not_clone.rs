use cache_core::cached;

#[derive(serde::Serialize, serde::Deserialize)]
struct User(u64);

#[cached]
async fn f(id: u64) -> User {
    User(id)
}

fn main() {}
