use cache_core::value::ShareError;

#[derive(ShareError)]
struct Generic<T>(T);

#[derive(ShareError)]
enum AppError {
    #[share(io)]
    Io(std::io::Error),
    Unknown(#[share(oi)] std::io::Error),
    Twice(#[share(io, with = same)] std::io::Error),
}

#[derive(ShareError)]
union Union {
    a: u32,
}

fn main() {}
