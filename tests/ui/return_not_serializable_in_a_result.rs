use cache_core::cached;

#[derive(Clone)]
struct User(#[allow(dead_code)] u64);

#[cached]
async fn f(id: u64) -> Result<Option<User>, String> {
    Ok(Some(User(id)))
}

fn main() {}
