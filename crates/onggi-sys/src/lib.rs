//! System calls: the only crate with `unsafe`.
//!
//! Each module wraps one family of calls in functions that are safe to call from anywhere, name the
//! call in their errors and decide nothing. Where `rustix` has a safe wrapper it is used; what it lacks
//! (clone3, mount_setattr, seccomp, raw signal calls) is made here, one call per block.

pub mod begin;
pub mod bpf;
pub mod clone_data;
pub mod cred;
pub mod entry;
pub mod error;
pub mod event;
pub mod fs;
pub mod jail;
pub mod keyring;
pub mod landlock;
pub mod link;
pub mod loopback;
pub mod mount;
pub mod netlink;
pub mod netns;
pub mod ns;
pub mod path;
pub mod process;
pub mod procfs;
pub mod ptrace;
pub mod pty;
pub mod resident;
pub mod rlimit;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod small_file;
pub mod spawn;
#[cfg(all(onggi_short_start, target_arch = "x86_64", target_os = "linux"))]
mod start;
pub mod tool;
pub mod trace;
pub mod unix;

pub use error::{Errno, Result, SysContext, SysError};
