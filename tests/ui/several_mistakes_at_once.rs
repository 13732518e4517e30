use cache_core::cached;

#[cached(tll = 60, name = "a:b", key = "{ib}", skip(pol), codec = "xml", version = "1")]
fn f(#[cached(nope)] pool: &mut str, id: u64) {
    let _ = (pool, id);
}

fn main() {}
