//! The server's invalidation pushes: one for each key that was read tracked on this connection, at
//! its next change.

use redis::Value;

use crate::store::pushes::Pushes;

/// Handles an invalidation push: a list of keys, or nothing for all of them (FLUSHALL, a full
/// tracking table).
pub(super) fn invalidated(pushes: &Pushes, data: &[Value]) {
    match data {
        [Value::Array(keys)] => {
            for key in keys {
                match key {
                    // Our keys are UTF-8.
                    Value::BulkString(key) => std::str::from_utf8(key).map_or((), |key| pushes.changed(key)),
                    Value::SimpleString(key) => pushes.changed(key),
                    _ => {}
                }
            }
        }
        _ => pushes.gap(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_push_names_keys_or_nothing_for_all() {
        let pushes = Arc::new(Pushes::default());
        let (mut a, mut b) = (pushes.register("a").unwrap(), pushes.register("b").unwrap());
        let keys = ["a", "unknown"].map(|key| Value::BulkString(key.as_bytes().to_vec()));
        invalidated(&pushes, &[Value::Array(keys.into())]);
        assert_eq!(((&mut a).now_or_never(), (&mut b).now_or_never()), (Some(()), None));
        invalidated(&pushes, &[Value::Nil]);
        assert_eq!((&mut b).now_or_never(), Some(()));
    }
}
