//! How does a write invalidate, without a reader storing the old row meanwhile?
//! `cargo run -p cache-core --example transaction`

#![allow(clippy::print_stdout, clippy::arithmetic_side_effects, reason = "an example tells what it does")]

use std::sync::Mutex;

use cache_core::{Cache, cached, invalidates};

/// A table with one row.
static NAME: Mutex<String> = Mutex::new(String::new());

#[cached(ttl = "1d", tags("names"))]
async fn name(id: u64) -> String {
    let row = NAME.lock().map(|name| name.clone()).unwrap_or_default();
    println!("read row {id}: {row:?}");
    row
}

/// Whatever this returns `Ok` for ends the entry of this id, and all entries with the tag `names`.
/// While it runs, readers get their values, and none of them is stored.
#[invalidates(name(id), tag = "names")]
async fn rename(id: u64, to: &str) -> Result<(), String> {
    if to.is_empty() {
        return Err(format!("row {id} needs a name"));
    }
    to.clone_into(&mut *NAME.lock().map_err(|error| error.to_string())?);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    rename(7, "Ann").await?;
    println!("{} {}", name(7).await, name(7).await);
    rename(7, "Anna").await?;
    println!("{}", name(7).await);
    // A write that fails leaves what is stored.
    println!("{}; {}", rename(7, "").await.err().unwrap_or_default(), name(7).await);

    // Where the transaction is not one function: a fence around its commit.
    let commit = async { NAME.lock().map(|mut name| name.push('!')).map_err(|error| error.to_string()) };
    Cache::global().fence().entry(&name::entry(7)).tag("names").around(commit).await?;
    println!("{}", name(7).await);
    Ok(())
}
