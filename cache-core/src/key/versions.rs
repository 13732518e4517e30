//! The keys of versions.

use super::{KeyText, KeyWriter, shorten};

/// Returns the key of the version of all entries of a namespace.
pub(crate) fn namespace_key(namespace: &str) -> String {
    format!("{namespace}@version")
}

/// Returns the key of the version of all entries of a function.
pub(crate) fn function_key(namespace: &str, name: &str) -> String {
    let mut key = format!("{namespace}:{name}");
    shorten(&mut key);
    key.push_str("@version");
    key
}

/// Returns the key of the version of all entries with a tag.
pub(crate) fn tag_key(namespace: &str, tag: &str) -> String {
    key_of("@tag:", namespace, tag)
}

/// Returns the key of the version that changes with every tag of a kind.
pub(crate) fn kind_key(namespace: &str, kind: &str) -> String {
    key_of("@tags:", namespace, kind)
}

fn key_of(what: &str, namespace: &str, text: &str) -> String {
    let mut written = KeyText::new();
    KeyWriter::new(&mut written).text(text);
    let mut key = format!("{namespace}{what}{}", written.as_str());
    shorten(&mut key);
    key
}

/// Returns namespace and name in a value key; `None` if it is not a value key, or was cut within
/// its name. Names contain no `:`, and a cut leaves a `~`, which names do not contain either.
pub(crate) fn origin(value_key: &str) -> Option<(&str, &str)> {
    let (namespace, rest) = value_key.split_once(':')?;
    let (rest, _fingerprint) = rest.rsplit_once('@')?;
    let (name, _args) = rest.split_once(':')?;
    let is_whole = !namespace.starts_with('{') && !namespace.contains('@') && !name.contains(['~', '@']);
    is_whole.then_some((namespace, name))
}
