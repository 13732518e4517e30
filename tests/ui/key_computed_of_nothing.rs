use cache_core::cached;

#[cached(key = "{std::process::id()}:{id}")]
async fn user(id: u64) -> u64 {
    id
}

#[cached(key = "{a + b}")]
async fn sum(a: u64, b: u64) -> u64 {
    a + b
}

struct Url;

#[cached(key = "{url:display}")]
async fn page(url: Url) -> u64 {
    let _ = url;
    1
}

#[cached(key = "{url.host()}")]
async fn host(url: Url) -> u64 {
    let _ = url;
    1
}

fn main() {}
