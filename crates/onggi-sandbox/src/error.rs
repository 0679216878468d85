//! `StartFailureError`: a failed step, in the same words whether it failed here or in the container's child.

use std::{fmt, path::Path};

use onggi_spec::monitor::StartFailure;
use onggi_sys::SysError;

/// Result of a sandbox operation.
pub type Result<T> = std::result::Result<T, StartFailureError>;

/// Exit code of an engine or runtime error.
pub const EXIT_ENGINE: i32 = 125;
/// Exit code of a command that cannot be invoked.
pub const EXIT_CANNOT_INVOKE: i32 = 126;
/// Exit code of a command that is not found.
pub const EXIT_NOT_FOUND: i32 = 127;

/// A failed operation: which step, which call, why, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailureError(pub StartFailure);

impl StartFailureError {
    /// A step that failed by a rule, not by a system call.
    pub fn new(step: impl Into<String>) -> Self {
        Self(StartFailure {
            step: step.into(),
            call: String::new(),
            errno: 0,
            exit_code: EXIT_ENGINE,
            hint: String::new(),
            in_container: false,
        })
    }

    /// A step that failed by a system call.
    pub fn from_sys(step: impl Into<String>, e: &SysError) -> Self {
        Self(StartFailure {
            step: step.into(),
            call: format!("{}({})", e.call, e.object),
            errno: e.raw(),
            exit_code: EXIT_ENGINE,
            hint: String::new(),
            in_container: false,
        })
    }

    /// Replaces the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = hint.into();
        self
    }

    /// A mount that failed; engines and people look for runc's words.
    pub(crate) fn mounting(mut self, source: &Path, target: &Path) -> Self {
        self.0.step = format!("error mounting {source:?} to rootfs at {target:?}: {}", self.0.step);
        self.0.in_container = true;
        self
    }

    /// Replaces the exit code.
    #[must_use]
    pub fn exit_code(mut self, code: i32) -> Self {
        self.0.exit_code = code;
        self
    }
}

impl fmt::Display for StartFailureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.step)?;
        match (self.0.call.is_empty(), self.0.errno) {
            (true, 0) => Ok(()),
            (true, n) => write!(f, ": {}", onggi_sys::error::describe(n)),
            (false, n) => write!(f, ": {}: {}", self.0.call, onggi_sys::error::describe(n)),
        }
    }
}

impl std::error::Error for StartFailureError {}

impl From<StartFailureError> for StartFailure {
    fn from(e: StartFailureError) -> Self {
        e.0
    }
}

/// Names the step of a failed system call.
pub(crate) trait Step<T> {
    /// `sys_call(..).step(|| "mount proc on /proc".into())?`
    fn step(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Step<T> for onggi_sys::Result<T> {
    #[inline]
    fn step(self, step: impl FnOnce() -> String) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(e) => Err(failed(step, &e)),
        }
    }
}

/// Apart from the code of those that succeed, which is what a start keeps in memory.
#[cold]
#[inline(never)]
fn failed(step: impl FnOnce() -> String, e: &SysError) -> StartFailureError {
    StartFailureError::from_sys(step(), e)
}
