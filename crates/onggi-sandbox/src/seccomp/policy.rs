//! A policy as the filter will apply it: names resolved to numbers, actions to return values, checked.

use std::collections::BTreeSet;

use onggi_spec::oci::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompOp};
use onggi_sys::seccomp::flag;

use super::{SeccompError, table};

/// Names and conditions in one policy: the largest in use (Docker's, for all capabilities) has about 600.
const MAX_RULES: usize = 16_384;

/// EPERM: what an errno action returns when the policy names none.
const EPERM: u32 = 1;
/// ENOSYS.
const ENOSYS: u32 = 38;
/// MAX_ERRNO of the kernel.
const MAX_ERRNO: u32 = 4095;
/// The bit of a number that marks the x32 interface (__X32_SYSCALL_BIT).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// SECCOMP_RET_* (seccomp(2)).
pub(super) mod ret {
    pub(crate) const KILL_PROCESS: u32 = 0x8000_0000;
    pub(crate) const KILL_THREAD: u32 = 0;
    pub(crate) const TRAP: u32 = 0x0003_0000;
    pub(crate) const ERRNO: u32 = 0x0005_0000;
    pub(crate) const USER_NOTIF: u32 = 0x7fc0_0000;
    pub(crate) const TRACE: u32 = 0x7ff0_0000;
    pub(crate) const LOG: u32 = 0x7ffc_0000;
    pub(crate) const ALLOW: u32 = 0x7fff_0000;
}

/// Answers by system call number, for each interface that the policy covers.
#[derive(Debug)]
pub(super) struct Policy {
    /// The document's rules, then the same for interfaces of 32 bits, then those of their combined calls.
    pub(super) rules: Vec<Rule>,
    /// For numbers without rules, and when no rule matches.
    pub(super) default: u32,
    /// 64-bit x86.
    pub(super) x86_64: Answers,
    /// 32-bit x86, when listed.
    pub(super) i386: Option<Answers>,
    /// x32, whose numbers carry [`X32_BIT`], when listed.
    pub(super) x32: Option<Answers>,
    pub(super) flags: u32,
    pub(super) notify: bool,
    pub(super) unknown: Vec<String>,
}

/// A rule without its names.
#[derive(Debug)]
pub(super) struct Rule {
    /// One of these must hold, each by all of its conditions; none: the rule always applies.
    pub(super) alternatives: Vec<Vec<Condition>>,
    pub(super) answer: u32,
}

/// What one interface answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Rules by number, ascending.
    pub(super) by_number: Vec<(u32, Decision)>,
    /// The highest number that the policy names.
    pub(super) last: Option<u32>,
}

/// What decides about one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// One answer.
    Always(u32),
    /// The first of these rules (by index) whose conditions hold.
    First(Vec<usize>),
}

/// One comparison of a 64-bit argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u8,
    pub(super) op: SeccompOp,
    pub(super) value: u64,
    /// Second operand of a masked comparison.
    pub(super) value_two: u64,
    /// On an interface of 32 bits: the upper half is no part of the argument.
    pub(super) narrow: bool,
}

/// An interface by which a process may enter the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Abi {
    X86_64,
    I386,
    X32,
}

impl Policy {
    pub(super) fn read(seccomp: &LinuxSeccomp) -> Result<Self, SeccompError> {
        check_size(seccomp)?;
        let abis = abis(&seccomp.architectures)?;
        let default = action(seccomp.default_action, seccomp.default_errno_ret)?;
        let notify = check_notify(seccomp)?;
        let mut rules = seccomp.syscalls.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        if abis.iter().any(|abi| *abi != Abi::X86_64) {
            rules.extend(rules.iter().map(narrowed).collect::<Vec<_>>());
        }
        let mut unknown = BTreeSet::new();
        let mut read = |abi| answers(&seccomp.syscalls, &mut rules, default, abi, &mut unknown);
        let x86_64 = read(Abi::X86_64);
        let i386 = abis.contains(&Abi::I386).then(|| read(Abi::I386));
        let x32 = abis.contains(&Abi::X32).then(|| read(Abi::X32));
        let on = |abi, name: &str| number(abi, name).is_some() || combined(abi, name).is_some();
        let known = |name: &str| on(Abi::X86_64, name) || abis.iter().any(|abi| on(*abi, name));
        let unknown = unknown.into_iter().filter(|name| !known(name)).map(cut).collect();
        Ok(Self { rules, default, x86_64, i386, x32, flags: all_flags(seccomp, notify)?, notify, unknown })
    }

    /// The answer for numbers above the last one that the policy names.
    pub(super) fn beyond(&self, answers: &Answers) -> u32 {
        let permissive = matches!(self.default & 0xffff_0000, ret::ALLOW | ret::LOG | ret::TRACE);
        if !permissive && answers.last.is_some() { ret::ERRNO | ENOSYS } else { self.default }
    }
}

/// Resolves the names for one interface; those that it lacks go to `unknown`.
fn answers<'s>(
    syscalls: &'s [LinuxSyscall],
    rules: &mut Vec<Rule>,
    default: u32,
    abi: Abi,
    unknown: &mut BTreeSet<&'s str>,
) -> Answers {
    let mut last = None;
    let mut found: Vec<(u32, usize)> = Vec::new();
    let first = if abi == Abi::X86_64 { 0 } else { syscalls.len() };
    for (index, syscall) in (first..).zip(syscalls) {
        for name in &syscall.names {
            let (direct, combined) = (number(abi, name), combined(abi, name));
            if direct.is_none() && combined.is_none() {
                unknown.insert(name);
            }
            last = last.max(direct).max(combined.map(|(number, _)| number));
            // A rule with the default action says nothing.
            if rules[index].answer == default {
                continue;
            }
            found.extend(direct.map(|number| (number, index)));
            if let Some((number, condition)) = combined.filter(|_| reaches_combined(&rules[index])) {
                found.push((number, rules.len()));
                rules.push(Rule { alternatives: vec![vec![condition]], answer: rules[index].answer });
            }
        }
    }
    // Stable: rules of one number stay in the order of the document.
    found.sort_by_key(|(number, _)| *number);
    let groups = found.chunk_by(|a, b| a.0 == b.0);
    Answers { by_number: groups.map(|group| (group[0].0, decision(rules, group))).collect(), last }
}

/// The first unconditional rule decides; conditional ones beside it say nothing.
fn decision(rules: &[Rule], group: &[(u32, usize)]) -> Decision {
    let indices = || group.iter().map(|(_, index)| *index);
    match indices().find(|index| rules[*index].alternatives.is_empty()) {
        Some(index) => Decision::Always(rules[index].answer),
        None => Decision::First(indices().collect()),
    }
}

fn rule(syscall: &LinuxSyscall) -> Result<Rule, SeccompError> {
    Ok(Rule { alternatives: alternatives(conditions(syscall)?), answer: action(syscall.action, syscall.errno_ret)? })
}

/// The same on an interface of 32 bits: of operands the lower halves count, as in libseccomp. -1 is -1 there.
fn narrowed(rule: &Rule) -> Rule {
    let half = |value: u64| value & u64::from(u32::MAX);
    let narrow = |c: &Condition| Condition { value: half(c.value), value_two: half(c.value_two), narrow: true, ..*c };
    let alternatives = rule.alternatives.iter().map(|conditions| conditions.iter().map(narrow).collect());
    Rule { alternatives: alternatives.collect(), answer: rule.answer }
}

/// 32-bit programs reach sockets and System V IPC also through one call each for all of it, socketcall(2) and ipc(2),
/// whose first argument tells which is meant; a rule about the one is about the other (as in libseccomp).
fn combined(abi: Abi, name: &str) -> Option<(u32, Condition)> {
    let find = |call: &table::Combined| {
        let (_, which) = call.names.iter().find(|(known, _)| *known == name)?;
        let (op, value, value_two) = (SeccompOp::MaskedEqual, call.mask, *which);
        Some((call.number, Condition { index: 0, op, value, value_two, narrow: true }))
    };
    if abi == Abi::I386 { table::COMBINED.iter().find_map(find) } else { None }
}

/// The other arguments of a combined call are in memory, where no filter sees them: a condition on them cannot be
/// kept. What is forbidden under a condition is then forbidden, and what is allowed under one is not.
fn reaches_combined(rule: &Rule) -> bool {
    rule.alternatives.is_empty() || rule.answer != ret::ALLOW
}

/// Conditions on different arguments must all hold. With two on one argument every condition stands alone:
/// libseccomp has one comparison per argument, so runc and crun make each a rule of its own then, and policies
/// that list the values to refuse rely on that.
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let indices: BTreeSet<u8> = conditions.iter().map(|c| c.index).collect();
    match conditions.len() {
        0 => Vec::new(),
        n if n == indices.len() => vec![conditions],
        _ => conditions.into_iter().map(|c| vec![c]).collect(),
    }
}

/// Whether some rule asks an agent; refuses what would ask it for ever.
fn check_notify(seccomp: &LinuxSeccomp) -> Result<bool, SeccompError> {
    if seccomp.default_action == SeccompAction::Notify {
        return Err(SeccompError::NotifyDeadlock { syscall: "as default action" });
    }
    let mut asking = seccomp.syscalls.iter().filter(|s| s.action == SeccompAction::Notify).peekable();
    let notify = asking.peek().is_some();
    // The runtime tells of the descriptor by write(2).
    if asking.any(|s| s.names.iter().any(|n| n == "write")) {
        return Err(SeccompError::NotifyDeadlock { syscall: "for the write syscall" });
    }
    if notify && seccomp.listener_path.as_deref().is_none_or(str::is_empty) {
        return Err(SeccompError::NoListener);
    }
    Ok(notify)
}

fn check_size(seccomp: &LinuxSeccomp) -> Result<(), SeccompError> {
    let found = seccomp.syscalls.iter().map(|s| s.names.len().saturating_mul(1 + s.args.len())).sum();
    if found > MAX_RULES {
        return Err(SeccompError::TooManyRules { found, limit: MAX_RULES });
    }
    Ok(())
}

/// The return value of an action.
fn action(action: SeccompAction, errno: Option<u32>) -> Result<u32, SeccompError> {
    let (value, max, name) = match action {
        SeccompAction::Errno => (ret::ERRNO, Some(MAX_ERRNO), "SCMP_ACT_ERRNO"),
        SeccompAction::Trace => (ret::TRACE, Some(0xffff), "SCMP_ACT_TRACE"),
        SeccompAction::Kill => (ret::KILL_THREAD, None, "SCMP_ACT_KILL"),
        SeccompAction::KillThread => (ret::KILL_THREAD, None, "SCMP_ACT_KILL_THREAD"),
        SeccompAction::KillProcess => (ret::KILL_PROCESS, None, "SCMP_ACT_KILL_PROCESS"),
        SeccompAction::Trap => (ret::TRAP, None, "SCMP_ACT_TRAP"),
        SeccompAction::Allow => (ret::ALLOW, None, "SCMP_ACT_ALLOW"),
        SeccompAction::Log => (ret::LOG, None, "SCMP_ACT_LOG"),
        SeccompAction::Notify => (ret::USER_NOTIF, None, "SCMP_ACT_NOTIFY"),
    };
    match (max, errno) {
        (None, None) => Ok(value),
        (None, Some(errno)) => Err(SeccompError::UselessErrno { action: name, value: errno }),
        (Some(max), Some(errno)) if errno > max => Err(SeccompError::ErrnoRange { value: errno, max }),
        (Some(_), errno) => Ok(value | errno.unwrap_or(EPERM)),
    }
}

fn conditions(rule: &LinuxSyscall) -> Result<Vec<Condition>, SeccompError> {
    let syscall = || rule.names.first().map(|n| cut(n)).unwrap_or_default();
    let condition = |arg: &LinuxSeccompArg| {
        let index = match u8::try_from(arg.index) {
            Ok(index @ 0..=5) => index,
            _ => return Err(SeccompError::ArgumentIndex { syscall: syscall(), index: arg.index }),
        };
        // Go programs leave a valueTwo of 0 out: Docker's rule for clone(2) compares masked flags with it.
        let two = arg.value_two.unwrap_or(0);
        // Bits that the mask leaves out are not compared, on neither side (as in libseccomp).
        let value_two = if arg.op == SeccompOp::MaskedEqual { two & arg.value } else { two };
        Ok(Condition { index, op: arg.op, value: arg.value, value_two, narrow: false })
    };
    rule.args.iter().map(condition).collect()
}

fn number(abi: Abi, name: &str) -> Option<u32> {
    let find = |table: &[(&str, u16)]| {
        let at = table.binary_search_by_key(&name, |(n, _)| n).ok()?;
        Some(u32::from(table[at].1))
    };
    match abi {
        Abi::X86_64 => find(table::X86_64),
        Abi::I386 => find(table::I386),
        Abi::X32 => find(table::X32_ONLY).or_else(|| find(table::X86_64)).map(|n| n | X32_BIT),
    }
}

/// The interfaces of this machine among the listed architectures; the native one is always covered.
fn abis(architectures: &[String]) -> Result<Vec<Abi>, SeccompError> {
    let mut found = Vec::new();
    for name in architectures {
        match name.as_str() {
            "SCMP_ARCH_X86_64" | "SCMP_ARCH_NATIVE" => found.push(Abi::X86_64),
            "SCMP_ARCH_X86" => found.push(Abi::I386),
            "SCMP_ARCH_X32" => found.push(Abi::X32),
            other if FOREIGN.contains(&other) => {}
            other => return Err(SeccompError::UnknownArchitecture { name: cut(other) }),
        }
    }
    Ok(found)
}

/// Names of `architectures`, sorted: this machine's, and those that a policy for several machines may list.
pub fn architectures() -> Vec<&'static str> {
    let mut all = FOREIGN.to_vec();
    all.extend(["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]);
    all.sort_unstable();
    all
}

/// Architectures of other machines.
#[rustfmt::skip]
const FOREIGN: [&str; 22] = [
    "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB", "SCMP_ARCH_SPARC", "SCMP_ARCH_SPARC64",
];

/// Names of actions, sorted.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Names of comparisons, sorted.
pub const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// Flags by their names. TSYNC is accepted and means nothing: there is one thread.
pub const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 0),
    ("SECCOMP_FILTER_FLAG_LOG", flag::LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", flag::SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", flag::WAIT_KILLABLE_RECV),
];

/// A policy without a list gets SPEC_ALLOW, as from runc; an empty list is no flag. The listener is asked for
/// where an agent is.
fn all_flags(seccomp: &LinuxSeccomp, notify: bool) -> Result<u32, SeccompError> {
    let Some(names) = &seccomp.flags else {
        return Ok(flag::SPEC_ALLOW | if notify { flag::NEW_LISTENER } else { 0 });
    };
    let known = names.iter().try_fold(0, |flags, name| match FLAGS.iter().find(|(n, _)| n == name) {
        Some((_, bit)) => Ok(flags | bit),
        None => Err(SeccompError::UnknownFlag { name: cut(name) }),
    })?;
    if known & flag::WAIT_KILLABLE_RECV != 0 && !notify {
        // The kernel refuses it without a listener; nothing would ever wait.
        return Ok(known & !flag::WAIT_KILLABLE_RECV);
    }
    Ok(known | if notify { flag::NEW_LISTENER } else { 0 })
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}
