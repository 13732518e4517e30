//! A value whose type only the caller knows.

use std::any::Any;
use std::sync::Arc;

/// A value whose type the engine does not name.
pub(crate) type Erased = Arc<dyn Any + Send + Sync>;
