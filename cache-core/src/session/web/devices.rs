//! A description of the device on which a user has logged in, for a list in which people can find a
//! session that is not theirs.

use crate::session::stored::record::Record;
use crate::session::{Result, Session};

/// Longer texts are cut off.
const MAX_BYTES: usize = 256;

impl Session {
    /// Sets the description of the device for the list of the user's sessions: a name that a person
    /// recognises. Up to 256 bytes are kept, without control characters. An empty text removes the
    /// description. It stays when the session's id changes, until another call, or a login with
    /// [`record_user_agent`](crate::session::SessionBuilder::record_user_agent), replaces it.
    ///
    /// # Errors
    /// Store errors.
    pub async fn set_device(&self, text: &str) -> Result<()> {
        let device = device(text);
        self.change(Box::new(move |record: &mut Record| {
            record.meta.device.clone_from(&device);
            Ok(())
        }))
        .await
    }
}

/// Returns the text as it is stored, or `None` if nothing is left of it.
pub(in crate::session) fn device(text: &str) -> Option<String> {
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
        // Not in the middle of a character.
        assert_eq!(device(&"é".repeat(1000)).unwrap(), "é".repeat(128));
        assert_eq!(device(&format!("x{}", "é".repeat(1000))).unwrap().len(), 255);
    }
}
