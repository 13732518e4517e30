//! What the library promises, one file a subject.

mod shapes;
