use cache_core::cached;

#[cached(negative_ttl = "30s")]
async fn bare(id: u64) -> u64 {
    id
}

#[cached(negative_ttl = "30s")]
async fn in_a_result(id: u64) -> Result<std::sync::Arc<u64>, String> {
    Ok(id.into())
}

#[cached(negative_ttl = "30s")]
async fn an_option(id: u64) -> Result<Option<u64>, String> {
    Ok(Some(id))
}

fn main() {}
