use cache_core::cached;

#[cached(tags("post:{value[].id}"))]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
