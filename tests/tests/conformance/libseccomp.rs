//! Our seccomp compiler against libseccomp, which runc and crun use: both filters of many policies are interpreted
//! over a matrix of calls and must decide the same.
//!
//! libseccomp is driven by `libseccomp.py` (Debian package python3-seccomp) the way runc drives it. What may differ,
//! and is counted, has a name of [`Why`]; docs/conformance.md explains each below "Known differences".

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use onggi_sandbox::seccomp::compile;
use onggi_spec::oci::{
    runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompOp},
    seccomp_default::default_policy,
};
use serde_json::json;

use crate::machine::{ALLOW, Call, ERRNO, I386, Instruction, X86_64, check_program, execute, holds, value};

const POLICIES: usize = 400;
const X32_BIT: u32 = 0x4000_0000;
const ENOSYS: u32 = 38;

/// Name; number on 64-bit x86, on x32 (without its bit), on 32-bit x86 (asm/unistd_*.h); socketcall(2)'s or ipc(2)'s.
type Known = (&'static str, Option<u32>, Option<u32>, Option<u32>, Option<(u32, u64)>);
const CALLS: &[Known] = &[
    ("read", Some(0), Some(0), Some(3), None),
    ("open", Some(2), Some(2), Some(5), None),
    ("ioctl", Some(16), Some(514), Some(54), None),
    ("clone", Some(56), Some(56), Some(120), None),
    ("ptrace", Some(101), Some(521), Some(26), None),
    ("personality", Some(135), Some(135), Some(136), None),
    ("keyctl", Some(250), Some(250), Some(288), None),
    ("openat", Some(257), Some(257), Some(295), None),
    ("clone3", Some(435), Some(435), Some(435), None),
    ("waitpid", None, None, Some(7), None),
    ("stat64", None, None, Some(195), None),
    ("socket", Some(41), Some(41), Some(359), Some((102, 1))),
    ("sendto", Some(44), Some(44), Some(369), Some((102, 11))),
    ("shmget", Some(29), Some(29), Some(395), Some((117, 23))),
    ("no_such_call", None, None, None, None),
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
/// On both sides of the borders that halves and masks have.
const VALUES: [u64; 10] =
    [0, 1, 2, 40, 0x7fff_ffff, 0xffff_ffff, 1 << 32, (1 << 32) + 1, 0xdead_beef_0000_0001, u64::MAX];

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

fn rule(numbers: &mut Numbers) -> LinuxSyscall {
    let action = numbers.of(&ACTIONS);
    let errno = match action {
        SeccompAction::Errno | SeccompAction::Trace => numbers.of(&[None, Some(0), Some(5), Some(38), Some(4094)]),
        _ => None,
    };
    let args = numbers.of(&[0, 0, 1, 1, 1, 2]);
    let arg = |numbers: &mut Numbers| {
        let (op, value) = (numbers.of(&OPERATORS), numbers.of(&VALUES));
        // What the mask leaves out can never be equal; libseccomp compares it nonetheless, which is the same.
        let two = if numbers.below(4) == 0 { numbers.of(&VALUES) } else { numbers.of(&VALUES) & value };
        LinuxSeccompArg { index: numbers.of(&[0, 1, 2, 3, 4, 5]), value, value_two: Some(two), op }
    };
    LinuxSyscall {
        names: (0..=numbers.below(3)).map(|_| numbers.of(CALLS).0.to_owned()).collect(),
        action,
        errno_ret: errno,
        args: (0..args).map(|_| arg(numbers)).collect(),
    }
}

fn policies() -> Vec<LinuxSeccomp> {
    let mut numbers = Numbers(17);
    // Not with x32: of several rules that compare, libseccomp 2.5 then makes programs that leave out a load.
    let archs = [&[][..], &["SCMP_ARCH_X86_64"], &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], &["SCMP_ARCH_X86"]];
    let mut made: Vec<LinuxSeccomp> = (0..POLICIES)
        .map(|_| {
            let action = numbers.of(&ACTIONS);
            let errno = (action == SeccompAction::Errno).then(|| numbers.of(&[1, 13, ENOSYS]));
            let list: Vec<LinuxSyscall> = (0..numbers.below(7)).map(|_| rule(&mut numbers)).collect();
            policy(&json!({
                "defaultAction": action, "defaultErrnoRet": errno, "architectures": numbers.of(&archs), "syscalls": list
            }))
        })
        .collect();
    made.push(default_policy(&onggi_spec::capability::DEFAULT));
    made.push(default_policy(&["CAP_SYS_ADMIN", "CAP_NET_RAW"]));
    made.push(default_policy(&[]));
    made
}

fn policy(document: &serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(document.clone()).expect("a policy as in config.json")
}

/// The filters of libseccomp; none where it refuses.
fn theirs(policies: &[LinuxSeccomp]) -> Vec<Option<Vec<Instruction>>> {
    let mut lines = String::new();
    for policy in policies {
        lines.push_str(&serde_json::to_string(policy).expect("a policy is JSON"));
        lines.push('\n');
    }
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", include_str!("libseccomp.py")]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.stderr(Stdio::piped()).spawn().expect("start python3 (Debian package python3-seccomp)");
    let mut stdin = child.stdin.take().expect("it was asked for");
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("wait for python3");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "libseccomp by Debian's python3-seccomp: {complaint}");
    writer.join().expect("the writer ends").expect("write the policies");
    let text = String::from_utf8(output.stdout).expect("hexadecimal digits");
    let programs: Vec<_> = text.lines().map(|line| (line != "refused").then(|| program(line))).collect();
    assert_eq!(programs.len(), policies.len());
    programs
}

/// struct sock_filter in hexadecimal.
fn program(hex: &str) -> Vec<Instruction> {
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("a hexadecimal byte"))
        .collect();
    let one = |c: &[u8]| {
        let k = u32::from_le_bytes([c[4], c[5], c[6], c[7]]);
        (u16::from_le_bytes([c[0], c[1]]), c[2], c[3], k)
    };
    bytes.chunks_exact(8).map(one).collect()
}

/// A difference that is meant.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// Ours answers ENOSYS beyond the newest call that a policy names. runc and crun add the same to what libseccomp
    /// makes.
    Newer,
    /// Several conditional rules apply: ours takes the first of the document, libseccomp the first in its own order.
    Order,
    /// Of several comparisons of one argument, libseccomp 2.5 mixes some up: its program then contradicts its own
    /// listing of it (seccomp_export_pfc). Ours is what the rules say.
    Twice,
    /// A filter cannot see the arguments of what 32-bit programs do through socketcall(2) or ipc(2). libseccomp drops
    /// conditions on them for the one and looks at other arguments for the other; ours keeps what forbids, without
    /// the condition, and drops what allows.
    Multiplexed,
}

impl Why {
    /// Its explanation below "Known differences" of docs/conformance.md.
    fn explained(self) -> &'static str {
        match self {
            Why::Newer => "D-seccomp-newer",
            Why::Order => "D-seccomp-order",
            Why::Twice => "D-seccomp-twice",
            Why::Multiplexed => "D-seccomp-combined",
        }
    }
}

struct Reading<'p> {
    policy: &'p LinuxSeccomp,
}

impl Reading<'_> {
    fn number(known: &Known, call: &Call) -> Option<u32> {
        match (call.arch, call.nr & X32_BIT != 0) {
            (X86_64, false) => known.1,
            (X86_64, true) => known.2.map(|n| n | X32_BIT),
            _ => known.3,
        }
    }

    /// Rules that say something and name a call that `reaches`.
    fn rules(&self, reaches: impl Fn(&Known) -> bool) -> impl Iterator<Item = &LinuxSyscall> {
        let default = value(self.policy.default_action, self.policy.default_errno_ret);
        let speaks = self.policy.syscalls.iter().filter(move |r| value(r.action, r.errno_ret) != default);
        speaks.filter(move |r| CALLS.iter().any(|known| r.names.iter().any(|n| n == known.0) && reaches(known)))
    }

    /// Answers of the conditional rules that apply, with the default when none does.
    fn answers(&self, call: &Call) -> BTreeSet<u32> {
        let narrow = call.arch == I386 || call.nr & X32_BIT != 0;
        let half = |v: u64| if narrow { v & 0xffff_ffff } else { v };
        let args = call.args.map(half);
        let one = |a: &LinuxSeccompArg| {
            let a = LinuxSeccompArg { value: half(a.value), value_two: a.value_two.map(half), ..a.clone() };
            holds(&a, &args)
        };
        let applies = |r: &&LinuxSyscall| {
            let shared = (0..6).any(|i| r.args.iter().filter(|a| a.index == i).count() > 1);
            if shared { r.args.iter().any(one) } else { r.args.iter().all(one) }
        };
        let this = |known: &Known| Self::number(known, call) == Some(call.nr);
        self.rules(this).filter(applies).map(|r| value(r.action, r.errno_ret)).collect()
    }

    /// One argument of this call is compared more than once.
    fn compares_twice(&self, call: &Call) -> bool {
        let this = |known: &Known| Self::number(known, call) == Some(call.nr);
        let mut indices: Vec<u32> = self.rules(this).flat_map(|r| r.args.iter().map(|a| a.index)).collect();
        let all = indices.len();
        indices.sort_unstable();
        indices.dedup();
        indices.len() < all
    }

    /// A rule says something, under a condition, of what this combined call does.
    fn conditional_through(&self, call: &Call) -> bool {
        let through =
            |known: &Known| call.arch == I386 && known.4.is_some_and(|(nr, sub)| nr == call.nr && call.args[0] == sub);
        self.rules(through).any(|r| !r.args.is_empty())
    }

    /// Why these two answers may differ.
    fn why(&self, call: &Call, ours: u32, theirs: u32) -> Option<Why> {
        let default = value(self.policy.default_action, self.policy.default_errno_ret);
        let answers = self.answers(call);
        if ours == ERRNO | ENOSYS && theirs == default && default != ALLOW && answers.is_empty() {
            return Some(Why::Newer);
        }
        if ours != ALLOW && self.conditional_through(call) {
            return Some(Why::Multiplexed);
        }
        let as_said = answers.contains(&ours) || answers.is_empty() && ours == default;
        if as_said && self.compares_twice(call) {
            return Some(Why::Twice);
        }
        (answers.len() > 1 && answers.contains(&ours) && answers.contains(&theirs)).then_some(Why::Order)
    }
}

fn calls(numbers: &mut Numbers) -> Vec<Call> {
    let mut all = Vec::new();
    for known in CALLS {
        let native = known.1.into_iter().chain(known.2.map(|n| n | X32_BIT)).map(|nr| (X86_64, nr));
        let other = known.3.into_iter().chain(known.4.map(|(nr, _)| nr)).map(|nr| (I386, nr));
        for (arch, nr) in native.chain(other) {
            for _ in 0..8 {
                let mut args: [u64; 6] = std::array::from_fn(|_| numbers.of(&VALUES));
                if let (I386, Some((mux, sub))) = (arch, known.4) {
                    args[0] = if nr == mux { numbers.of(&[sub, sub, 3, 5]) } else { args[0] };
                }
                all.push(Call { arch, nr, args });
            }
        }
    }
    // Numbers that no policy names, -1 (a tracer has skipped the call), interfaces that no policy lists.
    for nr in [1, 39, 60, 200, 334, 400, 470, 511, 512, 548, X32_BIT - 1, X32_BIT, X32_BIT + 1, u32::MAX] {
        for arch in [X86_64, I386, 0xc000_00b7, 0] {
            all.push(Call { arch, nr, args: [1; 6] });
        }
    }
    all
}

/// Every number of each interface that libseccomp 2.5 knows, for the policies that engines give.
fn whole_interface() -> Vec<Call> {
    let numbers = (0..=450)
        .filter(|nr| !(335..=336).contains(nr))
        .flat_map(|nr| [(X86_64, nr), (X86_64, nr | X32_BIT), (I386, nr)]);
    let arguments = [0, 1, 8, 16, 17, 40, 0x2000_0000, 0x7e02_0000, 0xffff_ffff, u64::MAX];
    numbers.flat_map(|(arch, nr)| arguments.map(|a| Call { arch, nr, args: [a, 0, 0, 0, 0, 0] })).collect()
}

#[test]
fn conformance_seccomp_filters_decide_as_libseccomps() {
    let policies = policies();
    let mut numbers = Numbers(4);
    let (mut compared, mut refused, mut differ) = (0, 0, BTreeMap::<&str, usize>::new());
    for (at, (policy, theirs)) in policies.iter().zip(theirs(&policies)).enumerate() {
        let ours: Vec<Instruction> =
            compile(policy).expect("compile").instructions.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
        check_program(&ours);
        let Some(theirs) = theirs else {
            refused += 1;
            continue;
        };
        let reading = Reading { policy };
        let calls = if at < POLICIES { calls(&mut numbers) } else { whole_interface() };
        for call in calls {
            let (ours, theirs) = (execute(&ours, &call), execute(&theirs, &call));
            compared += 1;
            if ours != theirs {
                let why = reading.why(&call, ours, theirs);
                let why = why.unwrap_or_else(|| {
                    let text = serde_json::to_string(policy).unwrap_or_default();
                    panic!("{call:x?}: ours {ours:#x}, libseccomp {theirs:#x}, policy {at}: {text:.3000}")
                });
                *differ.entry(why.explained()).or_default() += 1;
            }
        }
    }
    println!("{} policies ({refused} refused), {compared} decisions, meant differences: {differ:?}", policies.len());
    let meant: usize = differ.values().sum();
    // A difference that is gone is reported, as everywhere in this suite.
    assert_eq!(differ.len(), 4, "{differ:?}");
    assert!(compared > 50_000 && meant * 4 < compared && refused * 4 < policies.len(), "{differ:?} of {compared}");
}
