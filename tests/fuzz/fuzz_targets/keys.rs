//! K1: distinct arguments give distinct keys. K4: no key contains a brace.
//!
//! The input is two values of one type. Each byte, except the last few, is one decision, so small
//! changes of the input are small changes of one value.

#![no_main]

use cache_core::Key;
use cache_core::testing::record;
use libfuzzer_sys::fuzz_target;

type Value = (Vec<Option<String>>, Option<Option<String>>, (String, Vec<(String, Vec<()>)>));

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn text(&mut self) -> String {
        let len = usize::from(self.byte() % 64).min(self.0.len());
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn option<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() & 1 == 1).then(|| make(self))
    }

    fn list<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.byte() % 16).map(|_| make(self)).collect()
    }

    fn value(&mut self) -> Value {
        (
            self.list(|input| input.option(Self::text)),
            self.option(|input| input.option(Self::text)),
            (self.text(), self.list(|input| (input.text(), input.list(|_| ())))),
        )
    }
}

fn key(value: &Value) -> String {
    record::value_key("app", &Key::new("f").part(&value.0).part(&value.1).part(&value.2), "0000000000000000")
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (one, two) = (input.value(), input.value());
    let (key_one, key_two) = (key(&one), key(&two));
    assert_eq!(one == two, key_one == key_two);
    assert!(!key_one.contains(['{', '}', '\n', '\0', ' ']));
    assert!(key_one.len() <= cache_core::key::MAX_KEY_LEN + 17);
});
