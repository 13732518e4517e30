use cache_core::cached;

// A waiter would get `Io("not found")` in the place of `NotFound`.
enum AppError {
    NotFound,
    Io(#[allow(dead_code)] std::io::Error),
}

impl From<std::io::Error> for AppError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for AppError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("app")
    }
}

#[cached]
async fn f(id: u64) -> Result<u64, AppError> {
    if id == 0 { Err(AppError::NotFound) } else { Ok(id) }
}

fn main() {}
