//! Prints a new session secret: `cargo run -p cache-core --features sessions --example gen_secret`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{}", cache_core::session::Secret::generate())
}
