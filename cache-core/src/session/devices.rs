//! On what a user has logged in, in words: for a list in which people find the session that is not theirs.

use super::meta::Meta;
use super::record::Record;
use super::{Result, Session};

/// What is longer is cut off.
const MAX_BYTES: usize = 256;

impl Session {
    /// Says on what this session is used, for its user's list: a name that a person recognises. Up to 256 bytes are kept, and no control
    /// characters; an empty text removes it. It stays with the session when its id changes, until a login with
    /// [`record_user_agent`](super::SessionBuilder::record_user_agent) or another call sets it anew.
    ///
    /// # Errors
    /// Faults of the store.
    pub async fn set_device(&self, text: &str) -> Result<()> {
        let device = device(text);
        self.change(Box::new(move |record: &mut Record| {
            let mut meta = Meta::of(record);
            meta.device.clone_from(&device);
            meta.store(record);
            Ok(())
        }))
        .await
    }
}

/// As it is stored; `None`: nothing is left of it.
pub(super) fn device(text: &str) -> Option<String> {
    let mut kept = String::new();
    for letter in text.trim().chars().filter(|letter| !letter.is_control()) {
        if kept.len().saturating_add(letter.len_utf8()) > MAX_BYTES {
            break;
        }
        kept.push(letter);
    }
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_bounded_text() {
        assert_eq!(device("  Mozilla/5.0\r\n (X11)\0 ").as_deref(), Some("Mozilla/5.0 (X11)"));
        assert_eq!(device(" \n"), None);
        assert_eq!(device(&"x".repeat(1000)).unwrap().len(), 256);
        // Not in the middle of a letter.
        assert_eq!(device(&"é".repeat(1000)).unwrap(), "é".repeat(128));
        assert_eq!(device(&format!("x{}", "é".repeat(1000))).unwrap().len(), 255);
    }
}
