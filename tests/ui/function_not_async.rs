use cache_core::cached;

#[cached]
fn f(id: u64) -> u64 {
    id
}

fn main() {}
