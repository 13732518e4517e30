use cache_core::object::CacheObject;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "cart", ttl = "7d", id = id)]
struct Cart<T> {
    id: u64,
    item: T,
}

fn main() {}
