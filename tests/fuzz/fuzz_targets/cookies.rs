//! No `Cookie` header causes a panic or yields an id that was not signed. A signed id is found
//! unchanged.
//!
//! The input is the headers, separated by newlines. The secret exists in this file only.

#![no_main]

use cache_core::session::raw;
use libfuzzer_sys::fuzz_target;

const NAME: &str = "connect.sid";
const SECRET: &[u8] = b"a secret of thirty-two bytes....";

/// Decodes every valid escape.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &behind[2..];
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let headers: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    if let Some(id) = raw::verified_id(&headers, NAME, &[b"old", SECRET]) {
        let signed = [&b"old"[..], SECRET].into_iter().filter_map(|secret| raw::cookie_value(&id, secret));
        let (plain, as_sent) = (decoded(data), data);
        let stands =
            |value: &[u8]| [&plain, as_sent].iter().any(|text| text.windows(value.len()).any(|at| at == value));
        assert!(
            signed.map(|value| decoded(value.as_bytes())).any(|value| stands(&value)),
            "an id without its signature"
        );
    }
    let text = String::from_utf8_lossy(data);
    drop(raw::verified_token(&text, SECRET));
    // A signed id is found whatever precedes it, unless another cookie has the same name.
    if let Some(value) = raw::cookie_value(&text, SECRET) {
        let header = format!("a=b; {NAME}={value}");
        assert_eq!(raw::verified_id(&[header.as_bytes()], NAME, &[SECRET]).as_deref(), Some(&*text));
        assert_eq!(raw::verified_id(&[header.as_bytes()], NAME, &[b"another"]), None);
    }
});
