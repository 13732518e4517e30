//! Which versions an invalidation renews, and the scope of a version key.

use std::collections::HashSet;
use std::sync::Arc;

use crate::key::tag_name;
use crate::key::versions::kind_key;
pub(crate) use crate::key::versions::{function_key, namespace_key, tag_key};
use crate::observe::history::Scope;

/// Returns the scope of a version key.
pub(crate) fn scope(version_key: &str) -> Scope {
    match version_key.split_once('@') {
        Some((name, "version")) if !name.contains(':') => Scope::Namespace,
        Some((name, _)) if name.contains(':') => Scope::Function,
        _ => Scope::Tag,
    }
}

/// Returns the keys that an invalidation of tags renews: each tag, and before it its kind.
pub(crate) fn keys_of_tags(namespace: &str, tags: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<Arc<str>> {
    let (mut kinds, mut keys): (Vec<Arc<str>>, Vec<Arc<str>>) = (Vec::new(), Vec::new());
    let mut known = HashSet::new();
    for tag in tags {
        let tag = tag.as_ref();
        let kind: Option<Arc<str>> = tag.split_once(':').map(|(kind, _)| kind_key(namespace, kind).into());
        kinds.extend(kind.filter(|kind| known.insert(Arc::clone(kind))));
        keys.push(tag_key(namespace, &tag_name(tag)).into());
    }
    // The kinds first: a run that reads the old version of its tag must not then find the new one
    // of the kind.
    kinds.append(&mut keys);
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    // I1
    fn an_invalidation_renews_a_key_per_kind_and_then_one_per_tag() {
        let keys = |tags: &[&'static str]| {
            let keys = keys_of_tags("app", tags);
            keys.iter().map(|key| key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&["posts"]), ["app@tag:posts"]);
        let three = ["app@tags:author", "app@tag:author:7", "app@tag:author:8", "app@tag:posts"];
        assert_eq!(keys(&["author:7", "author:8", "posts"]), three);
        assert_eq!(keys(&["a b:{x}"]), ["app@tags:a%20b", "app@tag:a%20b:%7Bx%7D"]);
        assert_eq!(keys(&[]), [""; 0]);
    }

    #[test]
    fn a_version_key_names_its_scope() {
        assert_eq!(scope(&namespace_key("app")), Scope::Namespace);
        assert_eq!(scope(&function_key("app", "shop.product")), Scope::Function);
        for tag in ["posts", "author:7", "@version", "a@version"] {
            assert_eq!(scope(&tag_key("app", tag)), Scope::Tag, "{tag}");
        }
    }
}
