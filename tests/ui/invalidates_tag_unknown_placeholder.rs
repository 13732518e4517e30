use cache_core::invalidates;

#[invalidates(tag = "author:{athor}", tag = "post:{result.id}", tag = "all {author}")]
async fn f(author: u64) -> u64 {
    author
}

fn main() {}
