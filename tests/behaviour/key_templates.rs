//! The parts of key and tag templates.

use std::path::Path;
use std::time::Duration;

use cache_core::key::KeyWriter;
use cache_core::{Cache, KeyPart, cached, invalidates};

/// An argument whose type does not implement `KeyPart`.
#[derive(Clone)]
struct Url(String);

impl Url {
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

#[cached(name = "page", ttl = 60, key = "{url.as_str()}:{url:display}:{path.to_str()}", skip(cache), tags("url:{url.as_str()}"), cache = cache)]
async fn page(cache: &Cache, url: &Url, path: &Path) -> String {
    let _ = cache;
    format!("{} {}", url.as_str(), path.display())
}

#[cached(name = "slugs", ttl = 60, key = "{slug(words)}/{pair.0[1]}", skip(cache), tags("words:{value.len():display}"), cache = cache)]
async fn slugs(cache: &Cache, words: &str, pair: &([u8; 2], u8)) -> Vec<String> {
    let _ = (cache, pair);
    vec![words.to_owned(), "x".to_owned()]
}

fn slug(words: &str) -> String {
    words.replace(' ', "-")
}

struct Shop {
    cache: Cache,
    host: Url,
}

impl Shop {
    #[cached(name = "item", ttl = 60, key = "{self.host.as_str()}:{id}", cache = &self.cache)]
    async fn item(&self, id: u64) -> u64 {
        id + self.host.0.len() as u64
    }

    #[invalidates(self.item(id), tag = "url:{self.host.as_str()}", tag = "host:{self.host:display}", cache = &self.cache)]
    async fn change(&self, id: u64) -> Result<(), ()> {
        let _ = id;
        Ok(())
    }
}

/// Returns the arguments in a key, without the function's name and the type's fingerprint.
fn arguments(key: &str) -> String {
    let (_, rest) = key.split_once(':').unwrap().1.split_once(':').unwrap();
    rest.rsplit_once('@').unwrap().0.to_owned()
}

// K1, K3
#[tokio::test]
async fn computed_parts_stand_in_keys_as_what_they_are() {
    let cache = Cache::in_memory();
    let url = Url("a:b/c d".to_owned());
    let key = page::entry(&url, Path::new("x/y")).on(&cache).key().to_owned();
    assert_eq!(arguments(&key), "a%3Ab%2Fc%20d:%3Ca%3Ab%2Fc%20d%3E:?x%2Fy");
    let key = slugs::entry("two words", &([1, 2], 3)).on(&cache).key().to_owned();
    assert_eq!(arguments(&key), "two-words/2");

    let shop = Shop { cache: cache.clone(), host: url.clone() };
    assert_eq!(arguments(shop.item_entry(7).key()), "a%3Ab%2Fc%20d:7");
    assert_eq!(shop.item(7).await, 14);
    page(&cache, &url, Path::new("x")).await;
    shop.change(7).await.unwrap();
    assert!(shop.item_entry(7).get().await.unwrap().is_none());
    assert!(page::entry(&url, Path::new("x")).on(&cache).get().await.unwrap().is_none());

    slugs(&cache, "two words", &([1, 2], 3)).await;
    cache.invalidate_tag("words:2").await.unwrap();
    assert!(slugs::entry("two words", &([1, 2], 3)).on(&cache).get().await.unwrap().is_none());
}

// K1, K6
#[tokio::test]
async fn durations_are_parts_of_keys() {
    #[cached(name = "waits", ttl = 60)]
    async fn waits(after: Duration) -> u64 {
        after.as_secs()
    }
    for (after, text) in [
        (Duration::ZERO, "0s"),
        (Duration::from_secs(90), "90s"),
        (Duration::from_millis(1_500), "1.5s"),
        (Duration::from_nanos(1), "0.000000001s"),
        (Duration::MAX, "18446744073709551615.999999999s"),
    ] {
        assert_eq!(arguments(waits::entry(after).key()), text);
        assert_eq!(waits(after).await, after.as_secs());
    }
}

/// An explicit implementation that ignores case.
struct Address(String);

impl KeyPart for Address {
    fn write_key(&self, key: &mut KeyWriter<'_>) {
        key.text(&self.0.to_lowercase());
    }
}

// K1
#[tokio::test]
async fn a_custom_key_part_defines_which_arguments_are_equal() {
    #[cached(name = "letters", ttl = 60)]
    async fn letters(of: Address) -> usize {
        of.0.len()
    }
    let key = |text: &str| letters::entry(Address(text.to_owned())).key().to_owned();
    assert_eq!(key("A@b"), key("a@B"));
    assert_ne!(key("a@b"), key("a@c"));
    assert_eq!(letters(Address("a@b".to_owned())).await, 3);
}

/// A function with the same name as a module.
mod users {}

#[cached(name = "users", ttl = 60, companion = UsersCache)]
async fn users(id: u64) -> u64 {
    id
}

// K2
#[tokio::test]
async fn a_function_beside_a_module_of_its_name_has_a_companion_of_another() {
    assert_eq!(users(7).await, 7);
    assert_eq!(UsersCache::entry(7).get().await.unwrap(), Some(7));
}
