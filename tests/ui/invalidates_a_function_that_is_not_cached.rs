use cache_core::invalidates;

async fn user(id: u64) -> u64 {
    id
}

#[invalidates(user(id))]
async fn rename(id: u64) {}

#[invalidates(all(user))]
async fn rename_all() {}

fn main() {}
