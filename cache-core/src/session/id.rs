//! The session's id, and the signature that proves that this server issued it.
//!
//! Invariant: no id or secret is ever shown. The signed form is that of cookie-signature 1.0.7,
//! which Express uses: `<id>.<base64 of HMAC-SHA256(secret, id), without padding>`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// The length that ASVS requires of keys; HMAC-SHA256 uses all of it.
pub(super) const MIN_SECRET_BYTES: usize = 32;
/// The longest accepted id. Express peers make 32 characters, UUIDs have 36.
const MAX_ID_BYTES: usize = 256;

/// A session's id. It gives access to the session, so `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// Makes an id of 192 bits from the operating system's random source, in base64url, as Express
    /// peers do.
    pub(super) fn random() -> Self {
        let (a, b) = (crate::random::u128().to_ne_bytes(), crate::random::u64().to_ne_bytes());
        Self(URL_SAFE_NO_PAD.encode([&a[..], &b[..]].concat()).into())
    }

    /// Appends a tag, which selects the slot of a Redis Cluster.
    pub(super) fn tagged(&self, tag: &str) -> Self {
        Self(format!("{}.{tag}", self.0).into())
    }

    /// Returns the tag of the id. For an id without a tag, made in the form of Express, this is the
    /// beginning of its hash.
    pub(super) fn tag(&self) -> String {
        let is_tag = |tag: &str| tag.len() == TAG_CHARS && tag.bytes().all(is_url_safe);
        match self.0.rsplit_once('.') {
            Some((_, tag)) if is_tag(tag) => tag.to_owned(),
            _ => self.hash().chars().take(TAG_CHARS).collect(),
        }
    }

    /// Accepts an id that another program made. `None` if it is empty, longer than 256 bytes, or
    /// contains control characters or white space.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let fits =
            !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.contains(|c: char| c.is_control() || c.is_whitespace());
        fits.then(|| Self(id.into()))
    }

    /// Returns the id itself. Do not log it: it is all that an attacker needs.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns a hash that may be shown and logged instead of the id, since the id cannot be
    /// derived from it. 43 characters.
    #[must_use]
    pub fn hash(&self) -> String {
        hash(self.0.as_bytes())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

fn is_url_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// The length of a tag: 64 bits in base64url.
const TAG_CHARS: usize = 11;

/// Makes a random tag.
pub(super) fn random_tag() -> String {
    URL_SAFE_NO_PAD.encode(crate::random::u64().to_ne_bytes())
}

/// Makes the tag of a user. Without the key, it cannot be assigned to a user, nor guessed by trying
/// names.
pub(super) fn user_tag(key: &[u8], user: &str) -> String {
    let mac = Secret::new(key).digest(user.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.get(..8).unwrap_or_default())
}

/// Returns the SHA-256 of the bytes in base64url.
pub(super) fn hash(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}

/// A secret that signs session ids. `Debug` shows nothing of it, and its memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Makes a secret from text or bytes, exactly as an Express peer uses it: a text counts as its
    /// UTF-8 bytes. At least 32 bytes; the modes that share sessions with Express accept shorter
    /// ones with a warning.
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        Self(Zeroizing::new(secret.as_ref().to_vec()))
    }

    /// Returns a new secret as text, for the program's secret store: 64 characters with 384 random
    /// bits.
    ///
    /// `cargo run -p cache-core --features sessions --example gen_secret` prints one.
    #[must_use]
    pub fn generate() -> String {
        let parts = [crate::random::u128(), crate::random::u128(), crate::random::u128()];
        let bytes = Zeroizing::new(parts.iter().flat_map(|part| part.to_ne_bytes()).collect::<Vec<u8>>());
        URL_SAFE_NO_PAD.encode(&bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn mac(&self, id: &[u8]) -> String {
        STANDARD_NO_PAD.encode(self.digest(id))
    }

    fn digest(&self, message: &[u8]) -> Vec<u8> {
        match Hmac::<Sha256>::new_from_slice(&self.0) {
            Ok(mut mac) => {
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
            // HMAC takes keys of any length.
            Err(_invalid_length) => Vec::new(),
        }
    }
}

impl<T: AsRef<[u8]>> From<T> for Secret {
    fn from(secret: T) -> Self {
        Self::new(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// All secrets. The first signs; all of them verify.
#[derive(Clone, Debug)]
pub(super) struct Keyring(Vec<Secret>);

/// Which secret made a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signed {
    /// The first one.
    Current,
    /// A secret that is being rotated out.
    Old,
}

impl Keyring {
    /// Makes an empty keyring, which signs and verifies nothing.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Makes a keyring. `short_ones`: whether a first secret of less than 32 bytes is accepted.
    pub(super) fn new(secrets: Vec<Secret>, short_ones: bool) -> Result<Self> {
        let bad = |detail: String| Err(Error::new(ErrorKind::Configuration, "sessions").detail(detail));
        let Some(first) = secrets.first() else {
            return bad(
                "sessions need a secret: `.secret(..)` of at least 32 bytes; `Secret::generate()` makes one".into()
            );
        };
        if secrets.iter().any(|secret| secret.len() == 0) {
            return bad("a session secret is empty; `Secret::generate()` makes one".into());
        }
        if first.len() < MIN_SECRET_BYTES && !short_ones {
            return bad(format!(
                "the session secret has {} bytes, at least {MIN_SECRET_BYTES} are needed; `Secret::generate()` makes \
                one; keep the short one as a second secret until the sessions that it signed have ended",
                first.len()
            ));
        }
        Ok(Self(secrets))
    }

    /// Returns the lengths of the secrets that are too short.
    pub(super) fn short(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(Secret::len).filter(|len| *len < MIN_SECRET_BYTES)
    }

    /// Returns `<id>.<signature>`.
    pub(super) fn sign(&self, id: &SessionId) -> String {
        format!("{}.{}", id.reveal(), self.mac(id.reveal().as_bytes()))
    }

    /// Signs any other message.
    pub(super) fn mac(&self, message: &[u8]) -> String {
        self.0.first().map(|secret| secret.mac(message)).unwrap_or_default()
    }

    /// Returns the id if one of the secrets signed it. Compares the whole signature with all
    /// secrets in constant time.
    pub(super) fn verify(&self, signed: &str) -> Option<(SessionId, Signed)> {
        let (id, mac) = signed.rsplit_once('.')?;
        let signed = self.check(id.as_bytes(), mac)?;
        Some((SessionId::parse(id)?, signed))
    }

    /// Returns which secret signed this message, or `None`.
    pub(super) fn check(&self, message: &[u8], mac: &str) -> Option<Signed> {
        let mut found = Choice::from(0);
        let mut place = u32::MAX;
        for (index, secret) in (0_u32..).zip(&self.0) {
            let matches = secret.mac(message).as_bytes().ct_eq(mac.as_bytes());
            place.conditional_assign(&index, matches & !found);
            found |= matches;
        }
        if !bool::from(found) {
            return None;
        }
        Some(if place == 0 { Signed::Current } else { Signed::Old })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by cookie-signature 1.0.7: id, secret, signature.
    const VECTORS: &[(&str, &[u8], &str)] = &[
        ("TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT", b"keyboard cat", "kdRwdvo/GWzaF6ijPy0ySlfqZaYx0TbOkHVGVctbQck"),
        ("R1UqolVb-Rd2gJef9Rbx-PLyuQev7t3y", b"keyboard cat", "ySXJuMFNnlbtXsjDNjR+Yzu51FNxPbNd5fAXqGG8yqE"),
        ("P2", b"keyboard cat", "6+21V6XsJ/KrtLDCK8GyEUiitjRvAFJGkQNgkv3gWH8"),
        ("99a6826d-214d-404e-8d6f-5bf27b923c9b", b"session_@@key", "SZsT4/xLV3AG+M32H7gYeWQamswhcwFMxTk982xB/Ro"),
        ("a.b.c", "会话".as_bytes(), "IdFlsY+QZvD4DV9/IzYrrHR9dQZcRncPC9S/VDz+wqQ"),
        ("TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT", &[0, 1, 2, 255], "cTDKm5GzHmm/0c83iIcjEP8eMFLSUls2Tl3JyJ3L61o"),
    ];

    fn keyring(secrets: &[&[u8]]) -> Keyring {
        Keyring::new(secrets.iter().map(Secret::new).collect(), true).unwrap()
    }

    #[test]
    fn signatures_are_those_of_express() {
        for (id, secret, mac) in VECTORS {
            let keyring = keyring(&[secret]);
            let id = SessionId::parse(id).unwrap();
            let signed = format!("{}.{mac}", id.reveal());
            assert_eq!(keyring.sign(&id), signed);
            assert_eq!(keyring.verify(&signed), Some((id, Signed::Current)));
        }
    }

    #[test]
    fn anything_but_the_whole_signature_is_refused() {
        let (id, secret, mac) = VECTORS[0];
        let keyring = keyring(&[secret]);
        let url_safe = mac.replace('/', "_").replace('+', "-");
        for wrong in ["", "A", &mac[..42], &format!("{mac}="), &format!("{mac}A"), &url_safe, &mac.to_lowercase()] {
            assert_eq!(keyring.verify(&format!("{id}.{wrong}")), None, "{wrong}");
        }
        // The last of 43 characters has two unused bits. No other character is accepted in its
        // place.
        assert_eq!(keyring.verify(&format!("{id}.{}l", &mac[..42])), None);
        assert_eq!(keyring.verify(&format!("{id}{mac}")), None);
        assert_eq!(keyring.verify(&format!(".{}", keyring.0[0].mac(b""))), None);
    }

    #[test]
    fn each_secret_verifies_and_the_first_signs() {
        let (old, new) = (keyring(&[b"old"]), keyring(&[b"new", b"old"]));
        let id = SessionId::random();
        assert_eq!(new.verify(&old.sign(&id)), Some((id.clone(), Signed::Old)));
        assert_eq!(new.verify(&new.sign(&id)), Some((id.clone(), Signed::Current)));
        assert_eq!(old.verify(&new.sign(&id)), None);
    }

    #[test]
    fn short_secrets_are_refused_unless_express_is_to_be_matched() {
        let short = || vec![Secret::new("keyboard cat")];
        assert!(Keyring::new(short(), false).unwrap_err().to_string().contains("at least 32"));
        assert_eq!(Keyring::new(short(), true).unwrap().short().collect::<Vec<_>>(), [12]);
        assert!(Keyring::new(vec![], true).is_err());
        assert!(Keyring::new(vec![Secret::new("")], true).is_err());
        assert_eq!(Keyring::new(vec![Secret::new(Secret::generate())], false).unwrap().short().count(), 0);
    }

    #[test]
    fn ids_are_new_each_time_and_are_not_shown() {
        let (a, b) = (SessionId::random(), SessionId::random());
        assert_ne!(a, b);
        assert_eq!(a.reveal().len(), 32);
        assert!(!format!("{a:?} {:?}", Secret::new("keyboard cat")).contains(['=', '"']));
        assert_eq!(format!("{a:?}"), "SessionId(..)");
        assert_ne!(Secret::generate(), Secret::generate());
        assert_eq!(Secret::generate().len(), 64);
    }

    #[test]
    fn an_id_keeps_its_tag_and_a_foreign_id_gets_one_from_its_hash() {
        let id = SessionId::random();
        assert_eq!((id.tag(), id.tag().len()), (id.hash()[..11].to_owned(), 11));
        let tag = user_tag(b"key", "ada");
        assert_eq!((id.tagged(&tag).tag(), random_tag().len()), (tag.clone(), 11));
        assert_eq!(tag, user_tag(b"key", "ada"));
        assert!(tag != user_tag(b"key", "bob") && tag != user_tag(b"other", "ada") && random_tag() != random_tag());
        // An id made by another program, with a dot in it.
        let own = SessionId::parse("a.b.c").unwrap();
        assert_eq!(own.tag(), own.hash()[..11]);
    }

    #[test]
    fn ids_that_could_harm_are_refused() {
        for bad in ["", "a\r\nb", "a\0", "a b", &"a".repeat(257)] {
            assert_eq!(SessionId::parse(bad), None);
        }
        for good in ["a.b.c", "99a6826d-214d-404e-8d6f-5bf27b923c9b", "*", "../x:y"] {
            assert!(SessionId::parse(good).is_some());
        }
    }
}
