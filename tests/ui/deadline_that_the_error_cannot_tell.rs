use cache_core::cached;

#[derive(Debug, Clone)]
struct AppError;

#[cached(deadline = "5s")]
async fn f(id: u64) -> Result<u64, AppError> {
    if id == 0 { Err(AppError) } else { Ok(id) }
}

fn main() {}
