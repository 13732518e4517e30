use cache_core::cached;

#[cached(key = "{id}", skip(author), tags("author:{author}"))]
async fn f(id: u64, author: u64) -> u64 {
    id + author
}

fn main() {}
