//! Values, hashes and messages exchanged between a Node program with the `redis` client and ours,
//! as described in `cache-core/docs/plain.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use cache_core::plain::{Reply, SetOptions, TimeToLive};
use cache_core::{Cache, ErrorKind};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{Express, RedisServer, soon};

use super::browser::Browser;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u8,
    tags: Vec<String>,
}

fn ada() -> User {
    User { name: "Ada \"é\" \u{2028}\n".to_owned(), age: 36, tags: vec![String::new(), "数".to_owned()] }
}

/// Starts the Node program and ours.
async fn programs() -> (RedisServer, Express, Node, Cache) {
    let server = RedisServer::start();
    let express = Express::start(&server, &[json!({ "sessions": false })]).await;
    let node = Node(Browser::new(express.ports()[0]));
    let cache = Cache::connect(&server.patient_url()).await.unwrap();
    (server, express, node, cache)
}

struct Node(Browser);

impl Node {
    async fn step(&mut self, step: String) -> Value {
        let visit = self.0.visit(&[&step]).await;
        assert_eq!(visit.0.status, 200, "{step}: {}", visit.0.body);
        visit.last()
    }

    /// Calls a method of the client: `client.hSet("key", {..})` is
    /// `call("hSet", json!(["key", {..}]))`.
    async fn call(&mut self, method: &str, arguments: Value) -> Value {
        self.step(format!("redis {method} {arguments}")).await
    }
}

#[tokio::test]
async fn values_written_by_either_program_are_read_by_the_other() {
    let (_server, _express, mut node, cache) = programs().await;
    let plain = cache.plain();

    node.call("set", json!(["user", serde_json::to_string(&ada()).unwrap()])).await;
    assert_eq!(plain.get("user").await.unwrap(), Some(ada()));
    plain.set("user:2", &ada(), Duration::from_secs(60)).await.unwrap();
    let text = node.call("get", json!(["user:2"])).await;
    assert_eq!(text, json!(serde_json::to_string(&ada()).unwrap()), "byte by byte what JSON.stringify would write");
    assert_eq!(node.call("ttl", json!(["user:2"])).await, json!(60));

    // The output of JSON.stringify for JavaScript's numbers.
    node.call("set", json!(["large", "9007199254740991"])).await;
    assert_eq!(plain.get::<u64>("large").await.unwrap(), Some(9_007_199_254_740_991));
    node.call("set", json!(["whole", "1e+21"])).await;
    assert_eq!(plain.get::<f64>("whole").await.unwrap(), Some(1e21));
    node.call("set", json!(["nothing", "null"])).await;
    assert_eq!(plain.get::<Option<u64>>("nothing").await.unwrap(), Some(None));

    assert!(plain.expire("user", Duration::from_secs(30)).await.unwrap());
    assert_eq!(node.call("ttl", json!(["user"])).await, json!(30));
    node.call("persist", json!(["user"])).await;
    node.call("del", json!(["user:2"])).await;
    assert_eq!(plain.get::<User>("user:2").await.unwrap(), None);
    assert!(plain.remove("user").await.unwrap());
    assert_eq!(node.call("exists", json!(["user"])).await, json!(0));

    // An undefined value, as stored after a forgotten JSON.stringify.
    node.call("set", json!(["broken", "[object Object]"])).await;
    assert_eq!(plain.get::<User>("broken").await.unwrap_err().kind(), ErrorKind::Decode);
}

#[tokio::test]
async fn hashes_written_by_either_program_are_read_by_the_other() {
    let (_server, _express, mut node, cache) = programs().await;
    let text = cache.plain().hash::<String>("user:7");
    let numbers = cache.plain().hash::<u64>("user:7");

    node.call("hSet", json!(["user:7", { "name": "Ada \"é\"", "views": 3, "tags": "[\"a\"]" }])).await;
    assert_eq!(text.get("name").await.unwrap().as_deref(), Some("Ada \"é\""));
    assert_eq!(numbers.get("views").await.unwrap(), Some(3));
    let tags = cache.plain().hash::<Vec<String>>("user:7").get("tags").await.unwrap();
    assert_eq!(tags, Some(vec!["a".to_owned()]));

    text.set_all([("name", &"Grace".to_owned()), ("empty", &String::new())]).await.unwrap();
    numbers.set("views", &4).await.unwrap();
    assert_eq!(node.call("hIncrBy", json!(["user:7", "views", 1])).await, json!(5));
    assert_eq!(numbers.get("views").await.unwrap(), Some(5));
    let all = node.call("hGetAll", json!(["user:7"])).await;
    assert_eq!(all, json!({ "name": "Grace", "views": "5", "tags": "[\"a\"]", "empty": "" }));
    let ours: BTreeMap<String, String> = text.all().await.unwrap().into_iter().collect();
    assert_eq!(json!(ours), all);

    let mut keys = text.keys().await.unwrap();
    keys.sort();
    let mut theirs: Vec<String> = serde_json::from_value(node.call("hKeys", json!(["user:7"])).await).unwrap();
    theirs.sort();
    assert_eq!(keys, theirs);
    assert_eq!(text.remove(["empty", "tags"]).await.unwrap(), 2);
    assert_eq!(node.call("hDel", json!(["user:7", "views"])).await, json!(1));
    assert_eq!(text.keys().await.unwrap(), ["name"]);
    assert_eq!(cache.plain().get::<Value>("user:7").await.unwrap_err().kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn messages_published_by_either_program_reach_the_other() {
    let (_server, _express, mut node, cache) = programs().await;
    let mut ours = cache.plain().subscribe::<User>("news").await.unwrap();
    node.step("subscribe news".to_owned()).await;

    assert_eq!(cache.plain().publish("news", &ada()).await.unwrap(), 2, "both programs listen");
    let text = node.step("message".to_owned()).await;
    assert_eq!(text, json!(serde_json::to_string(&ada()).unwrap()));
    assert_eq!(soon("our own message", ours.next()).await.unwrap().unwrap(), ada());

    let message = serde_json::to_string(&ada()).unwrap();
    assert_eq!(node.call("publish", json!(["news", message])).await, json!(2));
    assert_eq!(soon("the message of Node", ours.next()).await.unwrap().unwrap(), ada());
    node.call("publish", json!(["news", "no user"])).await;
    let error = soon("a foreign message", ours.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    node.call("publish", json!(["news", message])).await;
    assert_eq!(soon("the stream goes on", ours.next()).await.unwrap().unwrap(), ada());
}

/// node-1: a text is a text under a key, in a field and in a message, whoever wrote it, and with
/// either client of Node.
#[tokio::test]
async fn bare_texts_go_both_ways_as_keys_fields_and_messages() {
    let (_server, _express, mut node, cache) = programs().await;
    let plain = cache.plain();
    for client in ["redis", "ioredis"] {
        let set = if client == "redis" { "hSet" } else { "hset" };
        let get = if client == "redis" { "hGet" } else { "hget" };
        for text in ["red", "a message", "42", "null", "", "{", "\u{2028} 数"] {
            node.step(format!("{client} set {}", json!(["color", text]))).await;
            assert_eq!(plain.get::<String>("color").await.unwrap().as_deref(), Some(text));
            assert_eq!(plain.text("color").get().await.unwrap().as_deref(), Some(text));
            assert_eq!(plain.bytes("color").get().await.unwrap().as_deref(), Some(text.as_bytes()));
            node.step(format!("{client} {set} {}", json!(["h", "color", text]))).await;
            assert_eq!(plain.hash::<String>("h").get("color").await.unwrap().as_deref(), Some(text));

            for key in ["set", "text"] {
                match key {
                    "set" => plain.set(key, text, Duration::from_secs(60)).await.unwrap(),
                    _ => plain.text(key).set(text, Duration::from_secs(60)).await.unwrap(),
                };
                assert_eq!(node.step(format!("{client} get {}", json!([key]))).await, json!(text), "{key}");
            }
            plain.hash::<String>("h").set("ours", &text.to_owned()).await.unwrap();
            assert_eq!(node.step(format!("{client} {get} {}", json!(["h", "ours"]))).await, json!(text));
        }
    }
    // A text written by JSON.stringify is read as that text, or exactly as stored if the caller
    // requests that.
    node.call("set", json!(["color", "\"red\""])).await;
    assert_eq!(plain.get::<String>("color").await.unwrap().as_deref(), Some("red"));
    assert_eq!(plain.text("color").get().await.unwrap().as_deref(), Some("\"red\""));

    node.step("subscribe news".to_owned()).await;
    node.step("ioredis-subscribe alerts".to_owned()).await;
    let mut texts = plain.subscribe::<String>("news").await.unwrap();
    let mut exact = plain.text("alerts").subscribe().await.unwrap();
    for text in ["a message", "7", "\"quoted\" and not"] {
        assert_eq!(plain.publish("news", text).await.unwrap(), 2);
        assert_eq!(node.step("message".to_owned()).await, json!(text));
        assert_eq!(soon("our own", texts.next()).await.unwrap().unwrap(), text);
        assert_eq!(node.call("publish", json!(["news", text])).await, json!(2));
        assert_eq!(node.step("message".to_owned()).await, json!(text));
        assert_eq!(soon("the message of Node", texts.next()).await.unwrap().unwrap(), text);

        assert_eq!(plain.text("alerts").publish(text).await.unwrap(), 2);
        assert_eq!(node.step("message".to_owned()).await, json!(text));
        assert_eq!(soon("our own", exact.next()).await.unwrap().unwrap(), text);
        assert_eq!(node.step(format!("ioredis publish {}", json!(["alerts", text]))).await, json!(2));
        assert_eq!(node.step("message".to_owned()).await, json!(text));
        assert_eq!(soon("the message of ioredis", exact.next()).await.unwrap().unwrap(), text);
    }
}

/// node-10: the operations on keys in the tutorials of both clients: expiry, counters, conditions,
/// lists.
#[tokio::test]
async fn expiry_counters_and_lists_go_both_ways() {
    let (_server, _express, mut node, cache) = programs().await;
    let plain = cache.plain();

    node.call("set", json!(["visits", "1", { "EX": 30 }])).await;
    assert_eq!(plain.increment("visits", 1).await.unwrap(), 2);
    assert_eq!(node.call("incr", json!(["visits"])).await, json!(3));
    assert_eq!(plain.get::<u64>("visits").await.unwrap(), Some(3));
    let TimeToLive::Left(left) = plain.ttl("visits").await.unwrap() else { panic!("it expires") };
    assert!(left <= Duration::from_secs(30) && left > Duration::from_secs(1), "{left:?}");
    node.step(format!("ioredis expire {}", json!(["visits", 500]))).await;
    let TimeToLive::Left(left) = plain.ttl("visits").await.unwrap() else { panic!("it expires") };
    assert!(left > Duration::from_secs(400), "{left:?}");
    node.call("persist", json!(["visits"])).await;
    assert_eq!(plain.ttl("visits").await.unwrap(), TimeToLive::NoExpiry);
    assert_eq!(plain.ttl("nobody").await.unwrap(), TimeToLive::NoKey);

    let lock = SetOptions::new().ttl(Duration::from_secs(60)).if_absent();
    assert!(plain.text("lock").set("ours", lock).await.unwrap());
    assert_eq!(node.call("set", json!(["lock", "theirs", { "NX": true }])).await, Value::Null);
    assert!(!plain.text("lock").set("ours again", lock).await.unwrap());
    assert_eq!(node.call("get", json!(["lock"])).await, json!("ours"));

    node.step(format!("ioredis hincrby {}", json!(["h", "views", 2]))).await;
    assert_eq!(plain.hash::<u64>("h").increment("views", 3).await.unwrap(), 5);
    assert_eq!(node.call("hGet", json!(["h", "views"])).await, json!("5"));

    node.call("lPush", json!(["jobs", ["mail:1", "mail:2"]])).await;
    let jobs = plain.command("lrange").args(["jobs", "0", "-1"]).send().await.unwrap();
    let texts: Vec<&str> = jobs.items().unwrap().iter().filter_map(Reply::text).collect();
    assert_eq!(texts, ["mail:2", "mail:1"]);
    plain.command("RPUSH").arg("jobs").arg("mail:3").send().await.unwrap();
    assert_eq!(node.step(format!("ioredis lrange {}", json!(["jobs", -1, -1]))).await, json!(["mail:3"]));
}
