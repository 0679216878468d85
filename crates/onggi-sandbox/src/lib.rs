//! OCI `create`, `start`, `exec`, `kill`, `delete`: config.json → plan → apply.
//!
//! The planner (`plan`) is pure and names every kernel operation in order; the child that is cloned into
//! the new namespaces executes them one by one (`child`) and reports a failure with step, call and errno.
//! Nothing is mounted outside the container's own mount namespace. The verbs never print.
//!
//! `create` and `exec` demand a single-threaded caller: the clone runs ordinary code.

mod channel;
mod child;
mod create;
mod error;
mod exec;
pub mod features;
mod hooks;
mod host_mounts;
mod idmapped;
mod late_pids;
mod launch;
mod lifecycle;
mod mount_sources;
mod mqueue;
mod net_devices;
mod notify;
mod options;
mod pid_file;
pub mod plan;
mod rdt;
pub mod seccomp;
mod sources;
mod start;
mod state;
mod unit;
mod update;

pub use create::{create, in_user_namespace};
pub use error::{EXIT_CANNOT_INVOKE, EXIT_ENGINE, EXIT_NOT_FOUND, Result, StartFailureError};
pub use exec::exec;
pub use lifecycle::{Listed, Scope, delete, kill, list, listed, pause, processes, resume, state, stored_config};
pub use options::{CgroupChoice, CgroupDriver, CreateOptions, Created, ExecOptions, Executed, Paused, Stdio};
pub use start::start;
pub use state::{check_id, notify_directory};
pub use update::{resources, update};
