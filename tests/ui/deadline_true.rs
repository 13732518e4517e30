use cache_core::cached;

#[cached(deadline = true)]
async fn f(id: u64) -> Result<u64, std::io::Error> {
    Ok(id)
}

fn main() {}
