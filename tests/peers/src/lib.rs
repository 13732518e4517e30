//! This package contains benches only.
