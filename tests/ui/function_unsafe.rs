use cache_core::cached;

#[cached]
async unsafe fn f(id: u64) -> u64 {
    id
}

fn main() {}
