//! Why a policy cannot be compiled.

/// A policy that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// Not one of libseccomp's names.
    #[error("architectures has {name:?}, which is no architecture")]
    UnknownArchitecture {
        /// The name, cut.
        name: String,
    },
    /// Not one of the kernel's flags.
    #[error("seccomp flag {name:?} is not known: flags has {name:?}, which is no flag")]
    UnknownFlag {
        /// The name, cut.
        name: String,
    },
    /// An errno beside an action that returns none.
    #[error("errnoRet {value} beside {action}, which returns no errno")]
    UselessErrno {
        /// The action.
        action: &'static str,
        /// The value.
        value: u32,
    },
    /// An errno outside the kernel's range.
    #[error("errnoRet {value} is more than {max}")]
    ErrnoRange {
        /// The value.
        value: u32,
        /// The largest one.
        max: u32,
    },
    /// An argument that no system call has.
    #[error("a condition on argument {index} of {syscall:?}; there are 0 to 5")]
    ArgumentIndex {
        /// The system call, cut.
        syscall: String,
        /// The index.
        index: u32,
    },
    /// The agent would be asked about the very call by which it is told.
    #[error("SCMP_ACT_NOTIFY cannot be used {syscall}: the start would block for good")]
    NotifyDeadlock {
        /// "for the write syscall" or "as default action".
        syscall: &'static str,
    },
    /// Nobody could be asked.
    #[error("SCMP_ACT_NOTIFY is used, but listenerPath is not set")]
    NoListener,
    /// More rules than any real policy has.
    #[error("it has {found} names and conditions; the limit is {limit}")]
    TooManyRules {
        /// How many.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// The kernel takes at most 4096 instructions.
    #[error("the seccomp policy needs {found} instructions; the kernel takes {limit}")]
    TooLarge {
        /// How many.
        found: usize,
        /// BPF_MAXINSNS.
        limit: usize,
    },
    /// A stored program that is cut, from another version or of another policy.
    #[error("the stored seccomp program is not usable: {reason}")]
    Stored {
        /// What is wrong.
        reason: &'static str,
    },
}

impl SeccompError {
    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UselessErrno { .. } => "leave errnoRet out, or use SCMP_ACT_ERRNO".into(),
            Self::TooLarge { .. } | Self::TooManyRules { .. } => {
                "use fewer conditions, for example masks or ranges instead of single values".into()
            }
            Self::NotifyDeadlock { .. } => "allow write, and notify only on the calls of interest".into(),
            _ => return None,
        })
    }
}
