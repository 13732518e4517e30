use cache_core::cached;

#[cached(plain = "user:{id}", key = "{id}", name = "user", tags("users"), version = 1, codec = "msgpack")]
async fn with_a_header(id: u64) -> u64 {
    id
}

#[cached(plain = "user:{id}", stale_while_revalidate = "1h", early = 2.0, ttl = 60)]
async fn beyond_its_ttl(id: u64) -> u64 {
    id
}

fn main() {}
