#[derive(Clone, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "cart", ttl = "7d", sliding, id = id)]
struct Cart {
    id: u64,
    items: Vec<String>,
}
