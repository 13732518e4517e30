//! Two functions share a key only if they are given the same name.

use cache_core::cached;

use super::Runs;

mod first {
    #[cache_core::cached]
    pub(super) async fn same(id: u32) -> String {
        format!("first {id}")
    }
}

mod second {
    #[cache_core::cached]
    pub(super) async fn same(id: u32) -> String {
        format!("second {id}")
    }
}

#[tokio::test]
async fn one_name_in_two_modules() {
    // K2
    assert_eq!(first::same(1).await, "first 1");
    assert_eq!(second::same(1).await, "second 1");
    assert_ne!(first::same::entry(1).key(), second::same::entry(1).key());
}

struct Posts;
struct Users;

impl Posts {
    #[cached(skip(self))]
    async fn by_id(&self, id: u32) -> String {
        format!("post {id}")
    }
}

impl Users {
    #[cached(skip(self))]
    async fn by_id(&self, id: u32) -> String {
        format!("user {id}")
    }
}

#[tokio::test]
async fn one_method_name_in_two_impls() {
    // K2
    assert_eq!(Posts.by_id(1).await, "post 1");
    assert_eq!(Users.by_id(1).await, "user 1");
    assert_ne!(Posts::by_id_entry(1).key(), Users::by_id_entry(1).key());
}

async fn outer_one() -> String {
    #[cached]
    async fn inner(id: u32) -> String {
        format!("one {id}")
    }
    inner(1).await
}

async fn outer_two() -> String {
    #[cached]
    async fn inner(id: u32) -> String {
        format!("two {id}")
    }
    inner(1).await
}

#[tokio::test]
async fn one_name_within_two_functions() {
    // K2
    assert_eq!(outer_one().await, "one 1");
    assert_eq!(outer_two().await, "two 1");
}

#[tokio::test]
async fn a_name_can_be_shared_explicitly() {
    // K2
    #[cached(name = "shapes.shared", skip(runs))]
    async fn one(runs: &Runs, id: u32) -> u32 {
        let _seen = id;
        runs.next()
    }
    #[cached(name = "shapes.shared", skip(runs))]
    async fn two(runs: &Runs, id: u32) -> u32 {
        let _seen = id;
        runs.next()
    }
    let runs = Runs::default();
    assert_eq!(one(&runs, 1).await, 1);
    assert_eq!(two(&runs, 1).await, 1);
    assert!(one::entry(1).key().contains(":shapes.shared:1@"));
}

#[tokio::test]
async fn another_version_is_another_entry() {
    #[cached(name = "shapes.versions", version = 1)]
    async fn old(id: u32) -> u32 {
        id
    }
    #[cached(name = "shapes.versions", version = 2)]
    async fn new(id: u32) -> u32 {
        id + 1
    }
    assert_eq!(old(1).await, 1);
    assert_eq!(new(1).await, 2);
}
