use cache_core::cached;

#[cached]
async extern "C" fn f(id: u64) -> u64 {
    id
}

fn main() {}
