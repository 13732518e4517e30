//! Values shared with other programs.

use std::collections::BTreeMap;
use std::time::Duration;

use cache_core::plain::{Reply, SetOptions, TimeToLive};
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

    async fn a_value_of_another_type_is_an_error_without_its_text(nodes: &Nodes) {
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

    // node-1
    async fn texts_are_stored_as_they_are_and_read_back_as_they_were(nodes: &Nodes) {
        let cache = nodes.node().await;
        let plain = cache.plain();
        for text in ["red", "", "42", "null", "[1]", "\"red\"", " \"red\" ", "\"", "数\n"] {
            plain.set("set", text, None).await.unwrap();
            assert_eq!(plain.get::<String>("set").await.unwrap().as_deref(), Some(text));
            plain.text("text").set(text, None).await.unwrap();
            assert_eq!(plain.text("text").get().await.unwrap().as_deref(), Some(text));
            assert_eq!(plain.bytes("text").get().await.unwrap().as_deref(), Some(text.as_bytes()));
            let hash = plain.hash::<String>("hash");
            hash.set("field", &text.to_owned()).await.unwrap();
            assert_eq!(hash.get("field").await.unwrap().as_deref(), Some(text));
        }
        plain.set("color", "red", None).await.unwrap();
        assert_eq!(plain.text("color").get().await.unwrap().as_deref(), Some("red"), "no quotes around it");
        plain.bytes("raw").set(&[0xff, 0], None).await.unwrap();
        assert_eq!(plain.bytes("raw").get().await.unwrap(), Some(vec![0xff, 0]));
        let error = plain.text("raw").get().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{error:?}");
        assert_eq!(plain.text("nobody").get().await.unwrap(), None);

        let mut texts = plain.subscribe::<String>("news").await.unwrap();
        let mut exact = plain.text("news").subscribe().await.unwrap();
        let mut bytes = plain.bytes("news").subscribe().await.unwrap();
        plain.publish("news", "a message").await.unwrap();
        assert_eq!(soon("text", texts.next()).await.unwrap().unwrap(), "a message");
        assert_eq!(soon("exact text", exact.next()).await.unwrap().unwrap(), "a message");
        assert_eq!(soon("bytes", bytes.next()).await.unwrap().unwrap(), b"a message");
        plain.bytes("news").publish(&[0xff]).await.unwrap();
        assert_eq!(soon("no text", exact.next()).await.unwrap().unwrap_err().kind(), ErrorKind::Decode);
        assert_eq!(soon("bytes", bytes.next()).await.unwrap().unwrap(), [0xff]);
    }

    // node-1: `set` with options
    async fn a_value_is_set_on_conditions_and_keeps_its_time(nodes: &Nodes) {
        let cache = nodes.node().await;
        let (plain, key) = (cache.plain(), cache.plain().text("k"));
        let minute = Duration::from_secs(60);
        assert!(!key.set("a", SetOptions::new().if_present()).await.unwrap());
        assert!(key.set("b", SetOptions::new().ttl(minute).if_absent()).await.unwrap());
        assert!(!key.set("c", SetOptions::new().if_absent()).await.unwrap());
        assert_eq!(key.get().await.unwrap().as_deref(), Some("b"));
        assert!(key.set("d", SetOptions::new().keep_ttl().if_present()).await.unwrap());
        assert!(matches!(plain.ttl("k").await.unwrap(), TimeToLive::Left(left) if left <= minute));
        assert!(plain.set("k", "e", None).await.unwrap());
        assert_eq!(plain.ttl("k").await.unwrap(), TimeToLive::NoExpiry);
        let error = key.set("f", SetOptions::new().ttl(minute).keep_ttl()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
        assert_eq!(key.get().await.unwrap().as_deref(), Some("e"));
    }

    // node-10
    async fn expiries_are_returned_and_integers_are_incremented(nodes: &Nodes) {
        let cache = nodes.node().await;
        let plain = cache.plain();
        assert_eq!(plain.ttl("k").await.unwrap(), TimeToLive::NoKey);
        assert_eq!(plain.increment("k", 5).await.unwrap(), 5);
        assert_eq!(plain.ttl("k").await.unwrap(), TimeToLive::NoExpiry);
        plain.expire("k", Duration::from_secs(1000)).await.unwrap();
        assert_eq!(plain.increment("k", -7).await.unwrap(), -2);
        assert!(matches!(plain.ttl("k").await.unwrap(), TimeToLive::Left(left) if left > Duration::from_secs(900)));
        assert_eq!(plain.get::<i64>("k").await.unwrap(), Some(-2));
        let hash = plain.hash::<i64>("h");
        assert_eq!(hash.increment("views", 2).await.unwrap(), 2);
        assert_eq!(hash.increment("views", 2).await.unwrap(), 4);
        assert_eq!(hash.get("views").await.unwrap(), Some(4));
        assert!(matches!(plain.ttl("h").await.unwrap(), TimeToLive::NoExpiry), "of any type");
        // Values that Redis refuses.
        for value in ["x", "1.5", "", "+1", "01", " 1", "9223372036854775807"] {
            plain.text("k").set(value, None).await.unwrap();
            let error = plain.increment("k", 1).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{value}: {error:?}");
            assert_eq!(plain.text("k").get().await.unwrap().as_deref(), Some(value), "it stays as it is");
        }
        assert_eq!(plain.increment("h", 1).await.unwrap_err().kind(), ErrorKind::Refused);
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
    let cache = Cache::connect(&server.patient_url()).await.unwrap();
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

/// node-10
#[tokio::test]
async fn commands_are_sent_except_those_that_harm_the_shared_connection() {
    let server = RedisServer::start();
    let cache = Cache::connect(&server.patient_url()).await.unwrap();
    let plain = cache.plain();
    let send = |words: &'static str| {
        let mut words = words.split(' ');
        plain.command(words.next().unwrap()).args(words).send()
    };

    assert_eq!(send("SADD tags a").await.unwrap(), Reply::Integer(1));
    assert_eq!(send("ping").await.unwrap().text(), Some("PONG"));
    assert_eq!(send("GET nobody").await.unwrap(), Reply::Nil);
    send("HSET h name Ada views 3").await.unwrap();
    let Reply::Map(pairs) = send("HGETALL h").await.unwrap() else { panic!("pairs") };
    assert_eq!(pairs.len(), 2);
    send("SET user {\"name\":\"Ada\",\"age\":36}").await.unwrap();
    assert_eq!(send("GET user").await.unwrap().value::<User>().unwrap().age, 36);
    assert_eq!(send("EVAL return{1,2} 0").await.unwrap(), Reply::Array(vec![Reply::Integer(1), Reply::Integer(2)]));
    let Reply::Double(score) = send("ZADD z INCR 1.5 m").await.unwrap() else { panic!("a number") };
    assert!((score - 1.5).abs() < f64::EPSILON);

    // The server's own error, with its code and without the arguments.
    let error = send("LPUSH h secret").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    let debug = format!("{:?}", plain.command("SET").arg("k").arg("secret"));
    assert!(!debug.contains("secret"), "{debug}");

    for refused in
        ["BLPOP q 0", "MULTI", "SUBSCRIBE news", "SELECT 1", "CLIENT TRACKING OFF", "RESET", "QUIT", "DEBUG SLEEP 0"]
    {
        let error = send(refused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{refused}: {error:?}");
    }
    assert!(send("CLIENT TRACKINGINFO").await.is_ok());
    assert_eq!(plain.get::<User>("user").await.unwrap().map(|user| user.age), Some(36), "the connection is as it was");

    let error = Cache::in_memory().plain().command("PING").send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("Redis"), "{error}");
}
