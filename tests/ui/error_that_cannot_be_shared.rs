use cache_core::cached;

struct AppError(#[allow(dead_code)] u64);

#[cached]
async fn f(id: u64) -> Result<u64, AppError> {
    Err(AppError(id))
}

fn main() {}
