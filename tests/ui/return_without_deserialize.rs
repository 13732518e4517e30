use cache_core::cached;

#[derive(Clone, serde::Serialize)]
struct User(u64);

#[cached(ttl = |user| std::time::Duration::from_secs(user.0), single_flight = "none")]
async fn f(id: u64) -> Option<User> {
    Some(User(id))
}

fn main() {}
