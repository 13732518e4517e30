use cache_core::object::CacheObject;

#[derive(Clone, CacheObject)]
#[cache_object(name = "cart", ttl = "7d", id = id)]
struct Cart {
    id: u64,
}

fn main() {}
