use cache_core::cached;

#[cached(ttl = 86_400_000)]
async fn a_day(id: u64) -> u64 {
    id
}

#[cached(ttl = 3_600_000, stale_while_revalidate = 5_400_000)]
async fn an_hour(id: u64) -> u64 {
    id
}

// Thirty days of seconds are what they are.
#[cached(ttl = 2_592_000)]
async fn a_month(id: u64) -> u64 {
    id
}

fn main() {}
