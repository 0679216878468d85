//! The seccomp compiler against an interpreter of classic BPF and a direct reading of the policy.
//!
//! The policy is read off the input byte by byte, from eight system calls and all operators; the same bytes give
//! the calls to ask about. The reading knows 64-bit x86 only: on other interfaces the filter must just answer.

use onggi_sandbox::seccomp::compile;
use onggi_spec::oci::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompOp};
use serde_json::json;

use crate::machine::{Call, ERRNO, Instruction, KILL_PROCESS, X86_64, check_program, execute, holds, value};

/// asm/unistd_64.h.
const CALLS: [(&str, u32); 8] = [
    ("read", 0),
    ("ioctl", 16),
    ("socket", 41),
    ("clone", 56),
    ("personality", 135),
    ("keyctl", 250),
    ("openat", 257),
    ("clone3", 435),
];
const ACTIONS: [SeccompAction; 7] = [
    SeccompAction::Allow,
    SeccompAction::Errno,
    SeccompAction::KillProcess,
    SeccompAction::KillThread,
    SeccompAction::Trap,
    SeccompAction::Trace,
    SeccompAction::Log,
];
const OPERATORS: [SeccompOp; 7] = [
    SeccompOp::NotEqual,
    SeccompOp::LessThan,
    SeccompOp::LessOrEqual,
    SeccompOp::Equal,
    SeccompOp::GreaterOrEqual,
    SeccompOp::GreaterThan,
    SeccompOp::MaskedEqual,
];

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::from(self.byte()) % list.len()]
    }

    /// Numbers near the borders that comparisons of two halves have.
    fn number(&mut self) -> u64 {
        let small = u64::from(self.byte());
        match self.byte() % 6 {
            0 => small,
            1 => small << 32,
            2 => (1 << 32) - 1 + small,
            3 => u64::MAX - small,
            4 => small << 56 | small,
            _ => 1 << (small % 64),
        }
    }
}

fn policy(bytes: &mut Bytes<'_>) -> LinuxSeccomp {
    let errno = |bytes: &mut Bytes<'_>| match bytes.byte() {
        0..128 => None,
        n => Some(u32::from(n)),
    };
    let rules = (0..bytes.byte() % 12).map(|_| LinuxSyscall {
        names: (0..=bytes.byte() % 3).map(|_| bytes.of(&CALLS).0.to_owned()).collect(),
        action: bytes.of(&ACTIONS),
        errno_ret: errno(bytes),
        args: (0..bytes.byte() % 4)
            .map(|_| LinuxSeccompArg {
                index: u32::from(bytes.byte() % 6),
                value: bytes.number(),
                value_two: Some(bytes.number()),
                op: bytes.of(&OPERATORS),
            })
            .collect(),
    });
    let syscalls: Vec<LinuxSyscall> = rules.collect();
    let (action, errno) = (bytes.of(&ACTIONS), errno(bytes));
    let document = json!({ "defaultAction": action, "defaultErrnoRet": errno, "syscalls": syscalls });
    serde_json::from_value(document).expect("what is written can be read")
}

/// By the rules in the documentation of `onggi_sandbox::seccomp`.
fn direct(policy: &LinuxSeccomp, name: &str, nr: u32, args: &[u64; 6]) -> u32 {
    let default = value(policy.default_action, policy.default_errno_ret);
    let number = |n: &String| CALLS.iter().find(|(known, _)| known == n).map(|(_, nr)| *nr);
    let newest = policy.syscalls.iter().flat_map(|r| r.names.iter().filter_map(number)).max();
    let of_call = || {
        let speaks = |r: &&LinuxSyscall| value(r.action, r.errno_ret) != default;
        policy.syscalls.iter().filter(speaks).filter(|r| r.names.iter().any(|n| n == name))
    };
    // Two conditions on one argument: one of them is enough.
    let shared = |r: &LinuxSyscall| (0..6).any(|i| r.args.iter().filter(|a| a.index == i).count() > 1);
    let matches = |r: &&LinuxSyscall| match shared(r) {
        true => r.args.iter().any(|a| holds(a, args)),
        false => r.args.iter().all(|a| holds(a, args)),
    };
    let forbids = !matches!(policy.default_action, SeccompAction::Allow | SeccompAction::Trace | SeccompAction::Log);
    match of_call().find(|r| r.args.is_empty()).or_else(|| of_call().find(matches)) {
        Some(rule) => value(rule.action, rule.errno_ret),
        None if forbids && newest.is_some_and(|n| nr > n) => ERRNO | 38,
        None => default,
    }
}

/// A policy: compiled, checked as the kernel does, and run beside a direct reading of its rules.
///
/// # Panics
/// When they disagree.
pub fn seccomp(data: &[u8]) {
    let mut bytes = Bytes(data);
    let policy = policy(&mut bytes);
    let Ok(program) = compile(&policy) else { return };
    let code: Vec<Instruction> = program.instructions.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    check_program(&code);
    for _ in 0..8 {
        let (name, nr) = bytes.of(&CALLS);
        let args = std::array::from_fn(|_| bytes.number());
        let got = execute(&code, &Call { arch: X86_64, nr, args });
        assert_eq!(got, direct(&policy, name, nr, &args), "{name}{args:x?} by {policy:?}");
        for arch in [0x4000_0003, 0, u32::MAX] {
            let got = execute(&code, &Call { arch, nr, args });
            assert_eq!(got, KILL_PROCESS, "a foreign architecture is killed");
        }
    }
}
