use cache_core::{cached, invalidates};

#[cached(tags("id:{ids[]}"))]
async fn tagged(ids: Vec<u64>) -> u64 {
    ids.len() as u64
}

#[cached(key = "of:{ids[]}")]
async fn keyed(ids: Vec<u64>) -> u64 {
    ids.len() as u64
}

#[invalidates(tag = "id:{ids[]}")]
async fn write(ids: Vec<u64>) -> Result<u64, std::io::Error> {
    Ok(ids.len() as u64)
}

fn main() {}
