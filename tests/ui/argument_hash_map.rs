// K5
use cache_core::cached;

use std::collections::HashMap;

#[cached]
async fn f(filters: HashMap<String, String>) -> usize {
    filters.len()
}

fn main() {}
