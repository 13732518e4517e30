use cache_core::cached;

#[cached(tags("author:{value.author}"))]
async fn f(id: u64) -> (u64, u64) {
    (id, id)
}

fn main() {}
