//! The session's id, and the signature that says that we gave it out.
//!
//! Invariant: nothing here shows an id or a secret. The signed form is that of cookie-signature 1.0.7, which Express uses:
//! `<id>.<base64 of HMAC-SHA256(secret, id), without padding>`.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// What ASVS asks of keys, and what an HMAC-SHA256 can use.
pub(super) const MIN_SECRET_BYTES: usize = 32;
/// Longer ids are not ours: Express peers make 32 characters, UUIDs have 36.
const MAX_ID_BYTES: usize = 256;
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A session's id: who knows it has the session. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// 192 bits of the operating system's random source in base64url: what Express peers make too.
    pub(super) fn random() -> Self {
        let (a, b) = (crate::random::u128().to_ne_bytes(), crate::random::u64().to_ne_bytes());
        Self(encode(&[&a[..], &b[..]].concat(), URL_SAFE).into())
    }

    /// With a tag behind it, which says in which slot of a Cluster it stands.
    pub(super) fn tagged(&self, tag: &str) -> Self {
        Self(format!("{}.{tag}", self.0).into())
    }

    /// The tag of the id; of one without a tag, which was made in the form of Express, the
    /// beginning of its hash.
    pub(super) fn tag(&self) -> String {
        let is_tag = |tag: &str| tag.len() == TAG_CHARS && tag.bytes().all(|byte| URL_SAFE.contains(&byte));
        match self.0.rsplit_once('.') {
            Some((_, tag)) if is_tag(tag) => tag.to_owned(),
            _ => self.hash().chars().take(TAG_CHARS).collect(),
        }
    }

    /// An id that somebody else made. `None`: it is empty, longer than 256 bytes or has control characters or white space in it.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let fits =
            !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.contains(|c: char| c.is_control() || c.is_whitespace());
        fits.then(|| Self(id.into()))
    }

    /// The id itself. Do not log it: it is all that a thief needs.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What may be shown and logged instead: the id cannot be found from it. 43 characters.
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

/// How long a tag is: 64 bits in base64url.
const TAG_CHARS: usize = 11;

/// One that says nothing.
pub(super) fn random_tag() -> String {
    encode(&crate::random::u64().to_ne_bytes(), URL_SAFE)
}

/// That of a user. Without the key nobody can tell whose it is, nor try names.
pub(super) fn user_tag(key: &[u8], user: &str) -> String {
    let mac = Secret::new(key).digest(user.as_bytes());
    encode(mac.get(..8).unwrap_or_default(), URL_SAFE)
}

/// base64url of SHA-256.
pub(super) fn hash(bytes: &[u8]) -> String {
    encode(&Sha256::digest(bytes), URL_SAFE)
}

/// What session ids are signed with. `Debug` shows nothing of it, and its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// From text or bytes, exactly as an Express peer has them: a text counts as its UTF-8. At least 32 bytes, but for the modes that
    /// share sessions with Express, which warn.
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        Self(Zeroizing::new(secret.as_ref().to_vec()))
    }

    /// A new one, as text to be put where the program's secrets are: 64 characters with 384 random bits.
    ///
    /// `cargo run -p cache-core --features sessions --example gen_secret` prints one.
    #[must_use]
    pub fn generate() -> String {
        let parts = [crate::random::u128(), crate::random::u128(), crate::random::u128()];
        let bytes = Zeroizing::new(parts.iter().flat_map(|part| part.to_ne_bytes()).collect::<Vec<u8>>());
        encode(&bytes, URL_SAFE)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn mac(&self, id: &[u8]) -> String {
        encode(&self.digest(id), STANDARD)
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

/// All secrets: the first signs, each verifies.
#[derive(Clone, Debug)]
pub(super) struct Keyring(Vec<Secret>);

/// Which secret a signature was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signed {
    /// The first.
    Current,
    /// One that is on its way out.
    Old,
}

impl Keyring {
    /// Signs and verifies nothing, until there are secrets.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// `short_ones`: whether a first secret under 32 bytes is taken.
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
                "the session secret has {} bytes, at least {MIN_SECRET_BYTES} are needed; `Secret::generate()` makes one; put the \
                 short one behind it until the sessions that it signed are gone",
                first.len()
            ));
        }
        Ok(Self(secrets))
    }

    /// The lengths of those that are too short.
    pub(super) fn short(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(Secret::len).filter(|len| *len < MIN_SECRET_BYTES)
    }

    /// `<id>.<signature>`
    pub(super) fn sign(&self, id: &SessionId) -> String {
        format!("{}.{}", id.reveal(), self.mac(id.reveal().as_bytes()))
    }

    /// The signature of anything else.
    pub(super) fn mac(&self, message: &[u8]) -> String {
        self.0.first().map(|secret| secret.mac(message)).unwrap_or_default()
    }

    /// The id, if one of the secrets signed it. The whole signature is compared with all of them, in a time that tells nothing.
    pub(super) fn verify(&self, signed: &str) -> Option<(SessionId, Signed)> {
        let (id, mac) = signed.rsplit_once('.')?;
        let signed = self.check(id.as_bytes(), mac)?;
        Some((SessionId::parse(id)?, signed))
    }

    /// Which of the secrets signed this; `None`: no one.
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

fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        // One character more than there are bytes.
        for shift in [18, 12, 6, 0].into_iter().take(chunk.len().saturating_add(1)) {
            let index = word >> shift & 63;
            out.push(alphabet.get(index as usize).map_or('A', |byte| char::from(*byte)));
        }
    }
    out
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
        // The last of 43 characters has two bits that say nothing; no other character stands for it.
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
    fn an_id_keeps_its_tag_and_others_have_that_of_their_hash() {
        let id = SessionId::random();
        assert_eq!((id.tag(), id.tag().len()), (id.hash()[..11].to_owned(), 11));
        let tag = user_tag(b"key", "ada");
        assert_eq!((id.tagged(&tag).tag(), random_tag().len()), (tag.clone(), 11));
        assert_eq!(tag, user_tag(b"key", "ada"));
        assert!(tag != user_tag(b"key", "bob") && tag != user_tag(b"other", "ada") && random_tag() != random_tag());
        // The id of somebody else's making, with a dot in it.
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

    #[test]
    fn base64_pads_nothing() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"foob", "Zm9vYg")] {
            assert_eq!(encode(bytes, STANDARD), text);
        }
    }
}
