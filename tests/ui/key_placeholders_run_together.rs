use cache_core::cached;

#[cached(key = "{a}-{b}")]
async fn f(a: &str, b: &str) -> String {
    format!("{a}{b}")
}

fn main() {}
