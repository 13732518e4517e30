use cache_core::invalidates;

struct Repo;

impl Repo {
    #[invalidates(tag = "repo:{self}")]
    async fn f(&self) {}
}

fn main() {}
