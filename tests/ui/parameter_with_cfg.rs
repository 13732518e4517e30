use cache_core::cached;

#[cached]
async fn f(#[cfg(unix)] id: u64) -> u64 {
    id
}

fn main() {}
