use cache_core::cached;

#[cached(tags("pair:{value.0[]}/{value.1[]}"))]
async fn side_by_side(id: u64) -> (Vec<u64>, Vec<u64>) {
    (vec![id], vec![id])
}

#[cached(tags("deep:{value[].words[].text}"))]
async fn nested(id: u64) -> Vec<u64> {
    vec![id]
}

fn main() {}
