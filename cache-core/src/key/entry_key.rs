//! The key of an entry, with its parts.

use std::fmt;
use std::sync::Arc;

/// An entry's key, with its parts.
#[derive(Clone)]
pub(crate) struct EntryKey {
    /// `<namespace>:<name>:<arguments>@<fingerprint>`
    pub(crate) value_key: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) fingerprint: Arc<str>,
}

impl EntryKey {
    pub(crate) fn new(namespace: &str, name: &Arc<str>, args: &str, fingerprint: &Arc<str>) -> Self {
        let value_key = super::value_key(namespace, name, args, fingerprint);
        Self { value_key, name: Arc::clone(name), fingerprint: Arc::clone(fingerprint) }
    }

    /// Returns the key of the same entry in another build.
    pub(crate) fn of_build(&self, fingerprint: &str) -> String {
        let base = self.value_key.strip_suffix(&*self.fingerprint).unwrap_or(&self.value_key);
        format!("{base}{fingerprint}")
    }
}

// Arguments may be personal data, so only the name is shown.
impl fmt::Debug for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:..@{}", self.name, self.fingerprint)
    }
}
