//! Compares the output of the code with the files in `tests/golden`, which freeze stored bytes,
//! keys and fingerprints.
//!
//! If the output differs, add a new version of the format with a reader for the old one; do not
//! replace the file. Only formats that were never released may be replaced:
//! `BLESS=1 cargo test -p cache-core golden`.

use std::fs;
use std::path::Path;

/// Compares a golden file with these lines, one `name = value` per line.
pub(crate) fn compare(file: &str, lines: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let now: String = lines.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &now).unwrap();
    }
    let frozen = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(frozen, now, "{file} differs: keys and records of deployed builds depend on it");
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
