use cache_core::cached;

#[cached(batch)]
async fn f(ids: &[u64]) -> Result<Vec<String>, std::io::Error> {
    Ok(ids.iter().map(u64::to_string).collect())
}

fn main() {}
