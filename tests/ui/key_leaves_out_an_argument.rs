// K7
use cache_core::cached;

// Two languages would share one page.
#[cached(key = "page:{id}")]
async fn page(id: u64, language: &str) -> String {
    format!("{id} {language}")
}

#[cached(key = "{a}", skip(b))]
async fn several(a: u64, b: u64, c: u64, (d, e): (u64, u64), #[cached(skip)] f: u64) -> u64 {
    a + b + c + d + e + f
}

#[cached(key = "{a.len()}", skip(b))]
async fn computed(a: &str, b: u64, c: u64) -> u64 {
    a.len() as u64 + b + c
}

fn main() {}
