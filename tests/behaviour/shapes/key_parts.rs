//! `#[derive(KeyPart)]` and `#[derive(CacheObject)]`.

use cache_core::object::CacheObject;
use cache_core::{Cache, KeyPart};
use serde::{Deserialize, Serialize};

use super::Runs;

#[derive(KeyPart)]
struct Named {
    id: u64,
    text: &'static str,
    #[key(skip)]
    _runs: Runs,
}

#[derive(KeyPart)]
struct Newtype<T>(T);

#[derive(KeyPart)]
struct Pair(u8, u8);

#[derive(KeyPart)]
struct Unit;

#[derive(KeyPart)]
struct Borrowing<'a, T: ?Sized, const N: usize> {
    text: &'a T,
    numbers: [u8; N],
}

#[derive(KeyPart)]
enum Choice<T, Skipped> {
    Nothing,
    Empty(),
    One(T),
    #[allow(dead_code, reason = "skipped")]
    Two {
        r#type: u8,
        other: Option<T>,
        #[key(skip)]
        hint: Skipped,
    },
}

/// Returns the arguments in a key. An entry's key is
/// `<namespace>:<name>:<arguments>@<fingerprint>`.
async fn shown<P: KeyPart + Send + Sync>(part: P) -> String {
    #[cache_core::cached(name = "parts")]
    async fn f<P: KeyPart + Send + Sync>(part: &P) -> u8 {
        let _seen = part;
        0
    }
    let key = f::entry(&part).key().to_owned();
    let args = key.splitn(3, ':').nth(2).unwrap();
    args.rsplit_once('@').unwrap().0.to_owned()
}

#[tokio::test]
async fn derived_key_parts_are_readable_and_injective() {
    // K1, K3, K6
    assert_eq!(shown(Named { id: 7, text: "a,b", _runs: Runs::default() }).await, "(7,a%2Cb)");
    assert_eq!(shown(Newtype(7)).await, "7");
    assert_eq!(shown(Newtype("")).await, "\"\"");
    assert_eq!(shown(Pair(1, 2)).await, "(1,2)");
    assert_eq!(shown(Unit).await, "()");
    assert_eq!(shown(Borrowing { text: "a", numbers: [1, 2] }).await, "(a,[1,2])");
    assert_eq!(shown(Choice::<u8, f64>::Nothing).await, "Nothing");
    assert_eq!(shown(Choice::<u8, f64>::Empty()).await, "Empty()");
    assert_eq!(shown(Choice::<u8, f64>::One(1)).await, "One(1)");
    assert_eq!(shown(Choice::Two { r#type: 1, other: Some(2), hint: 1.5 }).await, "Two(1,?2)");
    assert_eq!(shown([Choice::<&str, f64>::One("Nothing"), Choice::Nothing]).await, "[One(Nothing),Nothing]");
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CacheObject)]
#[cache_object(name = "shapes.cart", ttl = "7d", sliding, id = id)]
struct Cart {
    id: u64,
    items: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CacheObject)]
#[cache_object(codec = "json", id = 0, ttl = 60)]
#[cache_object(name = "shapes.draft")]
struct Draft(String, u8);

#[tokio::test]
async fn derived_objects() {
    assert_eq!((Cart::NAME, Cart::TTL.as_secs(), Cart::SLIDING), ("shapes.cart", 7 * 86_400, true));
    assert_eq!((Draft::NAME, Draft::TTL.as_secs(), Draft::SLIDING), ("shapes.draft", 60, false));
    let carts = Cache::in_memory().objects::<Cart>();
    let cart = Cart { id: 7, items: vec![] };
    assert!(carts.create(&cart).await.unwrap());
    assert_eq!(carts.load(&7).await.unwrap(), Some(cart));
    let drafts = Cache::in_memory().objects::<Draft>();
    drafts.save(&Draft("a".to_owned(), 1)).await.unwrap();
    assert_eq!(drafts.load("a").await.unwrap(), Some(Draft("a".to_owned(), 1)));
}
