//! Checks the features that the example is built with. Its tests are built with more features, so
//! they cannot detect a missing one.

use super::source;

/// Returns the line of a manifest that names a dependency.
fn dependency<'a>(manifest: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("{name} = ");
    let section = manifest.split("\n[").find(|section| section.starts_with("dependencies]"))?;
    section.lines().find(|line| line.starts_with(&start))
}

// D1: every URL that the library knows works with the blog.
#[test]
fn the_blog_understands_urls_with_tls() {
    let manifest = source::text("examples/blog/Cargo.toml").unwrap();
    let line = dependency(&manifest, "cache-core").unwrap();
    assert!(line.contains("\"tls\""), "{line}");
    assert_eq!(dependency("[a]\n[dependencies]\nb = 1\n[dev-dependencies]\ncache-core = 2", "cache-core"), None);
}
