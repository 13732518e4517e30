//! Type-erased values.

use std::any::Any;
use std::sync::Arc;

/// A type-erased value. Only the caller knows its type.
pub(crate) type Erased = Arc<dyn Any + Send + Sync>;
