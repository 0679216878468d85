//! `linux.seccomp` of config.json to a classic BPF filter. Pure: the loading is onggi-sys's.
//!
//! The filter is a binary search over ranges of system call numbers, so its cost grows with the logarithm
//! of the policy and neighbours with the same answer cost nothing. For one system call:
//!
//! 1. a rule with the default action says nothing and is left out (as runc does);
//! 2. the first rule without conditions decides (as libseccomp does);
//! 3. else the first rule in the order of the document whose conditions all hold; when two of its conditions
//!    are on one argument, one of them is enough (as in runc and crun);
//! 4. else the default action. Where that forbids, numbers above every system call that the policy names
//!    answer ENOSYS (as runc does), so that programs fall back from calls newer than the policy.
//!
//! On interfaces of 32 bits (i386, x32) conditions are about 32 bits, and what i386 also does through socketcall(2)
//! and ipc(2) is meant there too.
//!
//! A foreign architecture is killed; so is x32 on x86_64 unless the policy lists it. System calls that
//! exist on no listed architecture are ignored and reported in [`Program::unknown`].
//!
//! [`encode`] and [`decode`] keep a compiled program as bytes, keyed by [`fingerprint`] of its policy.

mod assemble;
mod cache;
mod compile;
mod error;
mod policy;
mod table;

use onggi_spec::oci::runtime::LinuxSeccomp;
use onggi_sys::seccomp::SockFilter;

pub use cache::{Fingerprint, decode, encode, fingerprint};
pub use error::SeccompError;
pub use policy::{ACTIONS, FLAGS, OPERATORS, architectures};

/// A compiled policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// At most 4096 instructions (BPF_MAXINSNS).
    pub instructions: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_*` that the policy asks for, without NEW_LISTENER.
    pub flags: u32,
    /// Some rule asks a user-space agent: load with NEW_LISTENER and send the descriptor to `listenerPath`.
    pub notify: bool,
    /// System calls that no listed architecture has, each once, sorted. Empty after [`decode`].
    pub unknown: Vec<String>,
}

/// The default policy of ordinary containers, compiled ahead of time: what a start needs nearly always.
/// Written by a test of this module, which also checks that it is current.
static BUILT_IN: &[u8] = include_bytes!("default.bpf");

/// The program of a policy: the built-in one when the policy is that of an ordinary container, else
/// compiled. For the start path.
///
/// # Errors
/// As [`compile`].
pub fn program(seccomp: &LinuxSeccomp) -> Result<Program, SeccompError> {
    // A built-in program of another policy, or of an older compiler, is no failure: this one is compiled.
    decode(BUILT_IN, fingerprint(seccomp)).or_else(|_| compile(seccomp))
}

/// Compiles a policy for this machine (x86_64).
///
/// # Errors
/// See [`SeccompError`].
pub fn compile(seccomp: &LinuxSeccomp) -> Result<Program, SeccompError> {
    let policy = policy::Policy::read(seccomp)?;
    let instructions = compile::compile(&policy)?;
    Ok(Program { instructions, flags: policy.flags, notify: policy.notify, unknown: policy.unknown })
}

#[cfg(test)]
mod tests;
