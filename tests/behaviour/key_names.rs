//! Names of functions in keys: readable, distinct, and the same in every build.

use cache_core::{Cache, cached};

#[cached(ttl = 60)]
async fn free(id: u64) -> u64 {
    id
}

mod inner {
    use cache_core::cached;

    #[cached(ttl = 60)]
    pub(super) async fn free(id: u64, text: &str) -> u64 {
        id + text.len() as u64
    }
}

struct Shop;
struct Store<T>(T);
struct Borrowed<'a>(&'a str);

impl Shop {
    #[cached(ttl = 60, skip(self))]
    async fn price(&self, id: u64) -> u64 {
        id
    }
}

impl<T: Send + Sync> Store<T> {
    #[cached(ttl = 60, skip(self))]
    async fn price(&self, id: u64) -> u64 {
        let _ = &self.0;
        id
    }
}

impl Borrowed<'_> {
    #[cached(ttl = 60, skip(self))]
    async fn price(&self, id: u64) -> u64 {
        id + self.0.len() as u64
    }
}

#[cached(ttl = 60, name = "named", version = 3)]
async fn with_a_name(id: Option<u64>) -> String {
    format!("{id:?}")
}

fn nested() -> String {
    #[cached(ttl = 60)]
    async fn free(id: u64) -> u64 {
        id
    }
    key(free::entry(7).key())
}

/// Returns the key without the namespace of the installed cache.
fn key(key: &str) -> String {
    key.split_once(':').unwrap().1.to_owned()
}

#[tokio::test]
// K6, K2, K3
async fn names_in_keys_are_readable_and_stable() {
    // A changed line here makes every stored value a miss at the next deploy. Mention it in the
    // changelog.
    let number = "@d8d294ea747d2ce5";
    let golden = [
        (key(free::entry(7).key()), format!("all.behaviour.key_names.free:7{number}")),
        (key(inner::free::entry(7, "a b").key()), format!("all.behaviour.key_names.inner.free:7,a%20b{number}")),
        (nested(), format!("all.behaviour.key_names.nested.free:7{number}")),
        (key(Shop::price_entry(7).key()), format!("all.behaviour.key_names.Shop.price:7{number}")),
        (
            key(Store::<Vec<u8>>::price_entry(7).key()),
            format!("all.behaviour.key_names.Store<alloc.vec.Vec<u8>>.price:7{number}"),
        ),
        (
            key(Store::<Shop>::price_entry(7).key()),
            format!("all.behaviour.key_names.Store<all.behaviour.key_names.Shop>.price:7{number}"),
        ),
        (key(Borrowed::price_entry(7).key()), format!("all.behaviour.key_names.Borrowed.price:7{number}")),
        (key(with_a_name::entry(None).key()), "named:!@6b58f76852207125".to_owned()),
    ];
    for (found, expected) in &golden {
        assert_eq!(found, expected);
    }
    // The bodies work under all these names.
    let sum = free(1).await + inner::free(1, "a").await + Shop.price(1).await + Store(1_u8).price(1).await;
    assert_eq!(sum + Borrowed("ab").price(1).await + with_a_name(None).await.len() as u64, 1 + 2 + 1 + 1 + 3 + 4);
}

#[tokio::test]
// K2
async fn a_namespace_keeps_programs_apart() {
    let (one, two) = (Cache::builder().namespace("one").in_memory(), Cache::builder().namespace("two").in_memory());
    assert!(free::entry(7).on(&one).key().starts_with("one:all."));
    assert!(free::entry(7).on(&two).key().starts_with("two:all."));
    for wrong in ["a:b", "", "a b", "a{b", "a@b"] {
        let error = Cache::builder().url("memory://").namespace(wrong).connect().await.unwrap_err();
        assert!(error.to_string().contains("namespace"), "{wrong:?}: {error}");
    }
}
