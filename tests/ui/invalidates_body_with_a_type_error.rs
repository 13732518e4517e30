use cache_core::invalidates;

struct NotWritten;

#[invalidates(tag = "users")]
async fn rename(id: u64) -> Result<u64, NotWritten> {
    id.to_string().parse::<u64>()?;
    Ok("7")
}

fn main() {}
