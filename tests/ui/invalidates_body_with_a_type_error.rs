use cache_core::invalidates;

#[invalidates(tag = "users")]
async fn rename(id: u64) -> Result<u64, std::io::Error> {
    "7".parse::<u64>()?;
    Ok("7")
}

fn main() {}
