//! Type-erased values.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A type-erased value. Only the caller knows its type.
pub(crate) type Erased = Arc<dyn Any + Send + Sync>;

/// Drops a value whose destructor is user code and may panic.
pub(crate) fn drop_caught<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // The panic hook has reported it. Its payload may have a destructor, too.
        std::mem::forget(panic);
    }
}
