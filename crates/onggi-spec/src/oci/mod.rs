//! The OCI runtime configuration (runtime-spec 1.3) and its construction from a request.

pub mod build;
pub mod runtime;
pub mod seccomp_default;
