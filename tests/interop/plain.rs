//! Values, hashes and messages that a Node program with the `redis` client and ours exchange, as `cache-core/docs/plain.md` says.

use std::collections::BTreeMap;
use std::time::Duration;

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

/// The Node program, and ours.
async fn programs() -> (RedisServer, Express, Node, Cache) {
    let server = RedisServer::start();
    let express = Express::start(&server, &[json!({ "sessions": false })]).await;
    let node = Node(Browser::new(express.ports()[0]));
    let cache = Cache::connect(&server.url()).await.unwrap();
    (server, express, node, cache)
}

struct Node(Browser);

impl Node {
    async fn step(&mut self, step: String) -> Value {
        let visit = self.0.visit(&[&step]).await;
        assert_eq!(visit.0.status, 200, "{step}: {}", visit.0.body);
        visit.last()
    }

    /// `client.hSet("key", {..})` is `call("hSet", json!(["key", {..}]))`.
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

    // What JSON.stringify makes of JavaScript's numbers.
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

    // An undefined value, as a forgotten JSON.stringify leaves it.
    node.call("set", json!(["broken", "[object Object]"])).await;
    assert_eq!(plain.get::<Value>("broken").await.unwrap_err().kind(), ErrorKind::Decode);
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
    node.call("publish", json!(["news", "no JSON"])).await;
    let error = soon("a foreign message", ours.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    node.call("publish", json!(["news", message])).await;
    assert_eq!(soon("the stream goes on", ours.next()).await.unwrap().unwrap(), ada());
}
