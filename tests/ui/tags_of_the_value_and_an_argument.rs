use cache_core::cached;

#[cached(tags("pair:{id}:{value}"))]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
