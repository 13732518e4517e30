use cache_core::object::CacheObject;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "cart", ttl = "7d", id = id, codec = "bincode")]
struct Cart {
    id: u64,
    items: Vec<u64>,
}

fn main() {}
