use cache_core::cached;

#[cached(tags("post:{id}", "posts", "post:{id}"))]
async fn f(id: u64) -> u64 {
    id
}

fn main() {}
