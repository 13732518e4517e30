use cache_core::value::ShareError;

struct Foreign;

#[derive(ShareError)]
enum AppError {
    NotFound,
    Io(std::io::Error),
    Foreign(Foreign),
}

fn main() {
    let _ = (AppError::NotFound, AppError::Io(std::io::ErrorKind::NotFound.into()), AppError::Foreign(Foreign));
}
