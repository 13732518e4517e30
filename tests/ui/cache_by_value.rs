use cache_core::cached;

#[cached(cache = cache_core::Cache::in_memory())]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
