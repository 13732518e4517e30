//! No `Cookie` header panics or shows an id that was not signed, and what was signed is found as it is.
//!
//! The input is the headers, parted by newlines; the secret is known to nobody outside of this file.

#![no_main]

use cache_core::session::raw;
use libfuzzer_sys::fuzz_target;

const NAME: &str = "connect.sid";
const SECRET: &[u8] = b"a secret of thirty-two bytes....";

/// With every escape decoded that is one.
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
    // Whatever else is sent before it, an id that was signed is found, unless another cookie has its name.
    if let Some(value) = raw::cookie_value(&text, SECRET) {
        let header = format!("a=b; {NAME}={value}");
        assert_eq!(raw::verified_id(&[header.as_bytes()], NAME, &[SECRET]).as_deref(), Some(&*text));
        assert_eq!(raw::verified_id(&[header.as_bytes()], NAME, &[b"another"]), None);
    }
});
