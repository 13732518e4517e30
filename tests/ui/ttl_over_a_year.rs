use cache_core::cached;

#[cached(ttl = "366d")]
async fn in_words(id: u64) -> u64 {
    id
}

#[cached(ttl = 40_000_001)]
async fn in_seconds(id: u64) -> u64 {
    id
}

fn main() {}
