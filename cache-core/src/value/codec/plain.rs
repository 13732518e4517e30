//! The form of plain values, fields of hashes and messages: text is bare, everything else is JSON.
//!
//! | value | bytes | read as text | read as another type |
//! |---|---|---|---|
//! | text | `red` | `red` | the JSON string `"red"`, if the type takes one |
//! | text that is written like a JSON string | `"\"red\""` | `"red"` | likewise |
//! | anything else | JSON | the JSON itself | JSON |
//!
//! Invariant: a text is read back as the same text. Errors quote nothing of the bytes.

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// Encodes a value.
pub(crate) fn encode<T: Serialize + ?Sized>(step: &'static str, value: &T) -> Result<Bytes> {
    // An encode error names types only.
    let json = serde_json::to_vec(value).map_err(|error| Error::new(ErrorKind::Encode, step).source(error))?;
    Ok(of_json(json).into())
}

/// Converts a value's JSON to its bytes.
pub(crate) fn of_json(json: Vec<u8>) -> Vec<u8> {
    match string(&json) {
        // Bare, it would be read as the text within the quotes.
        Some(text) if string(text.as_bytes()).is_some() => json,
        Some(text) => text.into_bytes(),
        None => json,
    }
}

/// Decodes a value.
pub(crate) fn decode<T: DeserializeOwned>(step: &'static str, bytes: &[u8]) -> Result<T> {
    let error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let bare = std::str::from_utf8(bytes).ok().and_then(|text| {
        let string = Value::String(text.to_owned());
        T::deserialize(string.into_deserializer()).ok()
    });
    // The source is left out: it may quote the payload.
    bare.ok_or_else(|| not_json(step, &error))
}

/// Returns the JSON string of a bare text.
pub(crate) fn quoted(bytes: &[u8]) -> Option<Vec<u8>> {
    serde_json::to_vec(std::str::from_utf8(bytes).ok()?).ok()
}

/// Returns the text of a JSON string.
fn string(json: &[u8]) -> Option<String> {
    serde_json::from_slice(json).ok()
}

fn not_json(step: &'static str, error: &serde_json::Error) -> Error {
    let what = match error.classify() {
        serde_json::error::Category::Data => "the JSON does not have the shape of this type",
        _ => "not JSON",
    };
    let detail = format!("{what} (line {}, column {})", error.line(), error.column());
    Error::new(ErrorKind::Decode, step).detail(detail)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Color {
        Red,
    }

    #[test]
    fn a_text_is_read_back_as_the_same_text() {
        let texts =
            ["red", "", "42", "null", "{\"a\":1}", "\"red\"", " \"red\" ", "\"", "\\", "数 \u{2028}\n", "\"a\" b"];
        for text in texts {
            let bytes = encode("test", text).unwrap();
            assert_eq!(decode::<String>("test", &bytes).unwrap(), text, "{bytes:?}");
            assert_eq!(decode::<Option<String>>("test", &encode("test", &Some("x")).unwrap()).unwrap().unwrap(), "x");
        }
        assert_eq!(&*encode("test", "red").unwrap(), b"red");
        assert_eq!(&*encode("test", "\"red\"").unwrap(), br#""\"red\"""#);
        // The form that JSON.stringify gives a text.
        assert_eq!(decode::<String>("test", br#""red""#).unwrap(), "red");
    }

    #[test]
    fn other_types_are_json_and_accept_bare_text() {
        assert_eq!(&*encode("test", &Color::Red).unwrap(), b"red");
        assert_eq!(decode::<Color>("test", b"red").unwrap(), Color::Red);
        assert_eq!(decode::<Color>("test", b"\"red\"").unwrap(), Color::Red);
        assert_eq!(decode::<Value>("test", b"a b").unwrap(), Value::from("a b"));
        assert_eq!(decode::<Value>("test", b"42").unwrap(), Value::from(42));
        assert_eq!(&*encode("test", &[1, 2]).unwrap(), b"[1,2]");
        let error = decode::<u32>("test", b"secret").unwrap_err();
        assert!(error.kind() == ErrorKind::Decode && !format!("{error:?} {error}").contains("secret"), "{error:?}");
        assert!(decode::<String>("test", b"\xff").is_err());
    }
}
