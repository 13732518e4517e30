//! Values shared with other programs.

use std::collections::BTreeMap;
use std::time::Duration;

use cache_core::{Cache, ErrorKind};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use support::{Nodes, RedisServer, on_both_stores, soon};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u8,
}

fn ada() -> User {
    User { name: "Ada \"é\"".to_owned(), age: 36 }
}

on_both_stores! {
    async fn json_values_with_and_without_expiry(nodes: &Nodes) {
        let cache = nodes.node().await;
        let plain = cache.plain();
        assert_eq!(plain.get::<User>("user").await.unwrap(), None);
        plain.set("user", &ada(), None).await.unwrap();
        assert_eq!(plain.get("user").await.unwrap(), Some(ada()));
        plain.set("short", &[1, 2], Duration::from_secs(30)).await.unwrap();
        assert!(plain.expire("user", Duration::from_secs(10)).await.unwrap());
        assert!(!plain.expire("nobody", Duration::from_secs(10)).await.unwrap());
        if let Nodes::Embedded(_, clock) = nodes {
            clock.advance(Duration::from_secs(10));
            assert_eq!(plain.get::<User>("user").await.unwrap(), None);
            assert!(plain.expire("short", None).await.unwrap());
            clock.advance(Duration::from_secs(1000));
            assert_eq!(plain.get("short").await.unwrap(), Some([1, 2]));
        }
        assert!(plain.remove("short").await.unwrap());
        assert!(!plain.remove("short").await.unwrap());
    }

    async fn what_is_not_of_the_asked_type_is_an_error_without_its_text(nodes: &Nodes) {
        let cache = nodes.node().await;
        let plain = cache.plain();
        plain.set("user", &"secret-text", None).await.unwrap();
        let error = plain.get::<User>("user").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(!format!("{error:?} {error}").contains("secret-text"), "{error:?}");
        let error = plain.hash::<String>("user").get("name").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        let error = plain.set("user", &ada(), Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let error = plain.set("map", &BTreeMap::from([((1, 2), 3)]), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode);
    }

    async fn hashes_are_typed_by_field(nodes: &Nodes) {
        let cache = nodes.node().await;
        let names = cache.plain().hash::<String>("h");
        names.set("name", &"Ada, \"42\" \n".to_owned()).await.unwrap();
        names.set("number", &"42".to_owned()).await.unwrap();
        assert_eq!(names.get("name").await.unwrap().as_deref(), Some("Ada, \"42\" \n"));
        assert_eq!(names.get("number").await.unwrap().as_deref(), Some("42"));
        assert_eq!(names.get("nothing").await.unwrap(), None);
        let numbers = cache.plain().hash::<u64>("numbers");
        numbers.set_all([("a", &1), ("b", &2)]).await.unwrap();
        numbers.set_all([]).await.unwrap();
        let mut all = numbers.all().await.unwrap();
        all.sort();
        assert_eq!(all, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        let mut keys = numbers.keys().await.unwrap();
        keys.sort();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(numbers.remove(["a", "x"]).await.unwrap(), 1);
        assert_eq!(numbers.remove(["b"]).await.unwrap(), 1);
        assert!(!cache.plain().remove("numbers").await.unwrap(), "an empty hash is no hash");
        let users = cache.plain().hash::<User>("users");
        users.set("1", &ada()).await.unwrap();
        assert_eq!(users.get("1").await.unwrap(), Some(ada()));
    }

    async fn messages_reach_every_subscriber(nodes: &Nodes) {
        let (here, there) = (nodes.node().await, nodes.node().await);
        let mut first = here.plain().subscribe::<User>("news").await.unwrap();
        let mut second = there.plain().subscribe::<User>("news").await.unwrap();
        assert_eq!(here.plain().publish("news", &ada()).await.unwrap(), 2);
        assert_eq!(here.plain().publish("other", &ada()).await.unwrap(), 0);
        there.plain().publish("news", &7).await.unwrap();
        for messages in [&mut first, &mut second] {
            assert_eq!(soon("a message", messages.next()).await.unwrap().unwrap(), ada());
            let error = soon("a foreign message", messages.next()).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode);
        }
    }
}

#[tokio::test]
async fn plain_values_are_those_of_redis_cli() {
    let server = RedisServer::start();
    let cache = Cache::connect(&server.url()).await.unwrap();
    let plain = cache.plain();
    let cli = |arguments: &[&str]| server.cli(arguments).trim_end().to_owned();

    plain.set("user", &ada(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(cli(&["GET", "user"]), r#"{"name":"Ada \"é\"","age":36}"#);
    assert!((59..=60).contains(&cli(&["TTL", "user"]).parse::<i32>().unwrap()));
    cli(&["SET", "user", r#" {"age": 7, "name": "Bob"} "#]);
    assert_eq!(plain.get("user").await.unwrap(), Some(User { name: "Bob".to_owned(), age: 7 }));

    cli(&["HSET", "h", "name", "Ada Lovelace", "views", "3", "tags", r#"["a"]"#]);
    assert_eq!(plain.hash::<String>("h").get("name").await.unwrap().as_deref(), Some("Ada Lovelace"));
    assert_eq!(plain.hash::<u32>("h").get("views").await.unwrap(), Some(3));
    assert_eq!(plain.hash::<Vec<String>>("h").get("tags").await.unwrap(), Some(vec!["a".to_owned()]));
    plain.hash("h").set("name", &"Grace".to_owned()).await.unwrap();
    assert_eq!(cli(&["HGET", "h", "name"]), "Grace");
    plain.hash("h").set("views", &4).await.unwrap();
    assert_eq!(cli(&["HINCRBY", "h", "views", "1"]), "5");

    let mut messages = plain.subscribe::<String>("news").await.unwrap();
    assert_eq!(cli(&["PUBLISH", "news", r#""hello""#]), "1");
    assert_eq!(soon("the message", messages.next()).await.unwrap().unwrap(), "hello");
}
