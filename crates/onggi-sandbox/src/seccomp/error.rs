//! Why a policy cannot be compiled.

/// A policy that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// Not one of libseccomp's names.
    #[error("linux.seccomp.architectures has {name:?}, which is no architecture")]
    UnknownArchitecture {
        /// The name, cut.
        name: String,
    },
    /// None of the architectures runs here.
    #[error("linux.seccomp.architectures lists only {listed}; this machine is SCMP_ARCH_X86_64")]
    ForeignArchitecture {
        /// What is listed.
        listed: String,
    },
    /// Not one of the kernel's flags.
    #[error("linux.seccomp.flags has {name:?}, which is no flag")]
    UnknownFlag {
        /// The name, cut.
        name: String,
    },
    /// An errno beside an action that returns none.
    #[error("linux.seccomp: errnoRet {value} beside {action}, which returns no errno")]
    UselessErrno {
        /// The action.
        action: &'static str,
        /// The value.
        value: u32,
    },
    /// An errno outside the kernel's range.
    #[error("linux.seccomp: errnoRet {value} is more than {max}")]
    ErrnoRange {
        /// The value.
        value: u32,
        /// The largest one.
        max: u32,
    },
    /// An argument that no system call has.
    #[error("linux.seccomp: a condition on argument {index} of {syscall:?}; there are 0 to 5")]
    ArgumentIndex {
        /// The system call, cut.
        syscall: String,
        /// The index.
        index: u32,
    },
    /// The agent would be asked about the very call by which it is told.
    #[error("linux.seccomp: SCMP_ACT_NOTIFY on {syscall} would block the start for good")]
    NotifyDeadlock {
        /// The system call, or "every system call" for the default action.
        syscall: &'static str,
    },
    /// More rules than any real policy has.
    #[error("linux.seccomp has {found} names and conditions; the limit is {limit}")]
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
            Self::ForeignArchitecture { .. } => "add SCMP_ARCH_X86_64, or leave the list out".into(),
            Self::UselessErrno { .. } => "leave errnoRet out, or use SCMP_ACT_ERRNO".into(),
            Self::TooLarge { .. } | Self::TooManyRules { .. } => {
                "use fewer conditions, for example masks or ranges instead of single values".into()
            }
            Self::NotifyDeadlock { .. } => "allow write, and notify only on the calls of interest".into(),
            _ => return None,
        })
    }
}
