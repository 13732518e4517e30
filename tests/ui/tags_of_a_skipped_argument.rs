use cache_core::cached;

#[cached(skip(author), tags("author:{author}", "id:{ib}"))]
async fn f(id: u64, author: u64) -> u64 {
    id + author
}

fn main() {}
