//! Runtime configuration types.
