use cache_core::value::NotCacheable;
use cache_core::cached;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, NotCacheable)]
struct Credentials {
    password_hash: String,
}

#[cached]
async fn bare(id: u64) -> Credentials {
    Credentials { password_hash: id.to_string() }
}

#[cached]
async fn in_a_list(id: u64) -> Result<Option<Vec<Credentials>>, String> {
    Ok(Some(vec![Credentials { password_hash: id.to_string() }]))
}

fn main() {}
