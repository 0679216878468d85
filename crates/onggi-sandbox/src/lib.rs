//! OCI `create`, `start`, `exec`, `kill`, `delete`: config.json → plan → apply.
//!
//! The planner (`plan`) is pure and names every kernel operation in order; the child that is cloned into
//! the new namespaces executes them one by one (`child`) and reports a failure with step, call and errno.
//! Nothing is mounted outside the container's own mount namespace. The verbs never print.
//!
//! `create` and `exec` demand a single-threaded caller: the clone runs ordinary code.

mod error;
mod options;
pub mod seccomp;

pub use error::{EXIT_CANNOT_INVOKE, EXIT_ENGINE, EXIT_NOT_FOUND, Result, StartFailureError};
pub use options::{CreateOptions, Created, ExecOptions, Executed, Stdio};
