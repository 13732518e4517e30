use cache_core::cached;

#[cached]
async fn f(ids: &mut Vec<u64>) -> usize {
    ids.len()
}

fn main() {}
