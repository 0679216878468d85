//! The compiled filter against a direct reading of the policy, by an interpreter of classic BPF.

use onggi_spec::oci::{
    runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction, SeccompOp},
    seccomp_default::default_policy,
};
use onggi_sys::seccomp::SockFilter;
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

mod machine;
mod rules;

use machine::{ALLOW, Call, ERRNO, I386, Instruction, KILL_PROCESS, X86_64, check_program, execute, holds, value};

impl Call {
    fn native(nr: u32, args: [u64; 6]) -> Self {
        Self { arch: X86_64, nr, args }
    }
}

/// A program as the interpreter takes it.
fn code(program: &[SockFilter]) -> Vec<Instruction> {
    program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect()
}

fn run(program: &[SockFilter], call: &Call) -> u32 {
    execute(&code(program), call)
}

fn check(program: &[SockFilter]) {
    check_program(&code(program));
}

fn policy(default: SeccompAction, syscalls: Vec<LinuxSyscall>) -> LinuxSeccomp {
    LinuxSeccomp {
        default_action: default,
        default_errno_ret: None,
        architectures: Vec::new(),
        flags: Some(Vec::new()),
        listener_path: Some("/agent".into()),
        listener_metadata: None,
        syscalls,
    }
}

fn rule(names: &[&str], action: SeccompAction, args: &[(u32, SeccompOp, u64, u64)]) -> LinuxSyscall {
    let args = args.iter().map(|(index, op, value, two)| LinuxSeccompArg {
        index: *index,
        value: *value,
        value_two: Some(*two),
        op: *op,
    });
    LinuxSyscall {
        names: names.iter().map(ToString::to_string).collect(),
        action,
        errno_ret: None,
        args: args.collect(),
    }
}

fn first(arg: u64) -> [u64; 6] {
    [arg, 0, 0, 0, 0, 0]
}

/// A direct reading of the policy by the rules in the module's documentation.
struct Direct<'p> {
    policy: &'p LinuxSeccomp,
    /// Every rule with every number it has, for 64-bit x86, x32 and 32-bit x86.
    named: [Vec<(&'p LinuxSyscall, u32)>; 3],
}

impl<'p> Direct<'p> {
    fn new(policy: &'p LinuxSeccomp) -> Self {
        let find = |t: &[(&str, u16)], name: &str| t.iter().find(|(n, _)| *n == name).map(|(_, v)| u32::from(*v));
        let x64 = |n: &str| find(super::table::X86_64, n);
        let x32 = |n: &str| find(super::table::X32_ONLY, n).or(x64(n)).map(|v| v | 0x4000_0000);
        let i386 = |n: &str| find(super::table::I386, n);
        let numbers = |number: &dyn Fn(&str) -> Option<u32>| {
            let mut named = Vec::new();
            for rule in &policy.syscalls {
                named.extend(rule.names.iter().filter_map(|n| Some((rule, number(n)?))));
            }
            named
        };
        Self { policy, named: [numbers(&x64), numbers(&x32), numbers(&i386)] }
    }

    fn answer(&self, call: &Call) -> u32 {
        let default = value(self.policy.default_action, self.policy.default_errno_ret);
        let listed = |name: &str| self.policy.architectures.iter().any(|a| a == name);
        let x32 = call.arch == X86_64 && call.nr >= 0x4000_0000;
        let named = match call.arch {
            X86_64 | I386 if call.nr == u32::MAX && (call.arch == X86_64 || listed("SCMP_ARCH_X86")) => return default,
            X86_64 if call.nr < 0x4000_0000 => &self.named[0],
            X86_64 if listed("SCMP_ARCH_X32") => &self.named[1],
            I386 if listed("SCMP_ARCH_X86") => &self.named[2],
            _ => return KILL_PROCESS,
        };
        let narrow = call.arch == I386 || x32;
        let speaks = |r: &LinuxSyscall| value(r.action, r.errno_ret) != default;
        let of_call = || named.iter().filter(|(r, n)| *n == call.nr && speaks(r)).map(|(r, _)| *r);
        let through = |n: &str| {
            let (nr, mask, which) = combined(n)?;
            (call.arch == I386 && call.nr == nr && call.args[0] & mask == which).then_some(())
        };
        let of_combined = |r: &LinuxSyscall| {
            r.names.iter().any(|n| through(n).is_some()) && (r.args.is_empty() || r.action != SeccompAction::Allow)
        };
        let shared = |r: &LinuxSyscall| (0..6).any(|i| r.args.iter().filter(|a| a.index == i).count() > 1);
        let holds = |r: &&LinuxSyscall| match shared(r) {
            true => r.args.iter().any(|a| holds_on(narrow, a, &call.args)),
            false => r.args.iter().all(|a| holds_on(narrow, a, &call.args)),
        };
        let muxed = |n: &String| (call.arch == I386).then(|| combined(n)).flatten().map(|(nr, ..)| nr);
        let all_names = self.policy.syscalls.iter().flat_map(|r| &r.names);
        let newest = named.iter().map(|(_, n)| *n).chain(all_names.filter_map(muxed)).max();
        let rules = self.policy.syscalls.iter().filter(|r| speaks(r));
        let direct = |r: &LinuxSyscall| of_call().any(|named| std::ptr::eq(named, r));
        let applies = |r: &&LinuxSyscall| direct(r) && holds(r) || of_combined(r);
        match of_call().find(|r| r.args.is_empty()).or_else(|| rules.clone().find(|r| applies(r))) {
            Some(r) => value(r.action, r.errno_ret),
            None if !matches!(default & 0xffff_0000, ALLOW | 0x7ff0_0000 | 0x7ffc_0000)
                && !x32
                && newest.is_some_and(|n| call.nr > n) =>
            {
                ERRNO | 38
            }
            None => default,
        }
    }
}

/// socketcall(2) and ipc(2), as far as the names of these tests need them.
fn combined(name: &str) -> Option<(u32, u64, u64)> {
    match name {
        "socket" => Some((102, 0xffff_ffff, 1)),
        "sendto" => Some((102, 0xffff_ffff, 11)),
        "shmget" => Some((117, 0xffff, 23)),
        _ => None,
    }
}

fn holds_on(narrow: bool, a: &LinuxSeccompArg, args: &[u64; 6]) -> bool {
    if !narrow {
        return holds(a, args);
    }
    let half = |v: u64| v & 0xffff_ffff;
    let a = LinuxSeccompArg { value: half(a.value), value_two: a.value_two.map(half), ..a.clone() };
    holds(&a, &args.map(half))
}

#[test]
fn the_tables_are_sorted_and_agree_with_the_kernel_headers_where_installed() {
    for (table, header) in [(super::table::X86_64, "unistd_64.h"), (super::table::I386, "unistd_32.h")] {
        assert!(table.is_sorted_by(|a, b| a.0 < b.0));
        let Ok(text) = std::fs::read_to_string(format!("/usr/include/x86_64-linux-gnu/asm/{header}")) else { continue };
        let mut seen = 0;
        for line in text.lines() {
            let Some((name, number)) = line.strip_prefix("#define __NR_").and_then(|l| l.split_once(' ')) else {
                continue;
            };
            let ours = table.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
            assert_eq!(ours.as_deref(), Some(number), "{name}");
            seen += 1;
        }
        assert!(seen > 300);
    }
    assert!(super::table::X32_ONLY.is_sorted_by(|a, b| a.0 < b.0));
}

#[test]
fn an_allow_list_allows_what_it_lists_and_nothing_else() {
    let p = policy(SeccompAction::Errno, vec![rule(&["read", "futex_waitv"], SeccompAction::Allow, &[])]);
    let program = compile(&p).expect("compile").instructions;
    check(&program);
    assert_eq!(run(&program, &Call::native(0, [0; 6])), ALLOW);
    assert_eq!(run(&program, &Call::native(1, [0; 6])), ERRNO | 1);
    // Newer than the policy: programs must be able to fall back.
    assert_eq!(run(&program, &Call::native(450, [0; 6])), ERRNO | 38);
}

#[test]
fn foreign_architectures_and_unlisted_x32_are_killed() {
    let p = policy(SeccompAction::Allow, vec![]);
    let program = compile(&p).expect("compile").instructions;
    // The native interface is covered whatever is listed.
    let listed = LinuxSeccomp { architectures: vec!["SCMP_ARCH_AARCH64".into()], ..p };
    assert_eq!(compile(&listed).expect("compile").instructions, program);
    check(&program);
    assert_eq!(run(&program, &Call::native(0, [0; 6])), ALLOW);
    assert_eq!(run(&program, &Call::native(0x4000_0000, [0; 6])), KILL_PROCESS);
    assert_eq!(run(&program, &Call::native(0x4000_0005, [0; 6])), KILL_PROCESS);
    assert_eq!(run(&program, &Call::native(u32::MAX, [0; 6])), ALLOW);
    for arch in [I386, 0, 0xc000_00b7] {
        assert_eq!(run(&program, &Call { arch, nr: 0, args: [0; 6] }), KILL_PROCESS);
    }
}

#[test]
fn listed_x86_interfaces_use_their_own_numbers() {
    let mut p = policy(SeccompAction::Errno, vec![rule(&["ioctl", "getpid"], SeccompAction::Allow, &[])]);
    p.architectures =
        ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"].map(Into::into).into();
    let program = compile(&p).expect("compile").instructions;
    check(&program);
    let i386 = |nr| run(&program, &Call { arch: I386, nr, args: [0; 6] });
    // ioctl: 16 on x86_64, 54 on i386, 514 with the x32 bit.
    assert_eq!((i386(54), i386(20), i386(16)), (ALLOW, ALLOW, ERRNO | 1));
    let native = |nr| run(&program, &Call::native(nr, [0; 6]));
    assert_eq!((native(16), native(0x4000_0000 | 514), native(0x4000_0000 | 39)), (ALLOW, ALLOW, ALLOW));
    assert_eq!((native(514), native(0x4000_0000 | 16)), (ERRNO | 38, ERRNO | 1));
}

#[test]
fn the_upper_half_of_an_argument_is_compared_too() {
    let p =
        policy(SeccompAction::Allow, vec![rule(&["socket"], SeccompAction::Errno, &[(0, SeccompOp::Equal, 40, 0)])]);
    let program = compile(&p).expect("compile").instructions;
    assert_eq!(run(&program, &Call::native(41, first(40))), ERRNO | 1);
    assert_eq!(run(&program, &Call::native(41, first(40 | 1 << 32))), ALLOW);
}

#[test]
fn bits_beyond_a_mask_are_not_compared_and_an_empty_one_always_matches() {
    let masked = |mask, wanted| rule(&["clone"], SeccompAction::Errno, &[(0, SeccompOp::MaskedEqual, mask, wanted)]);
    for (mask, wanted, expected) in [(1, 2, ALLOW), (1, 3, ERRNO | 1), (0, 0, ERRNO | 1), (0, 1, ERRNO | 1)] {
        let program = compile(&policy(SeccompAction::Allow, vec![masked(mask, wanted)])).expect("compile").instructions;
        check(&program);
        assert_eq!(run(&program, &Call::native(56, first(3))), expected, "{mask} {wanted}");
    }
}

#[test]
fn an_unconditional_rule_wins_over_conditional_ones_in_any_order() {
    let conditional = rule(&["socket"], SeccompAction::KillProcess, &[(0, SeccompOp::Equal, 1, 0)]);
    let always = rule(&["socket"], SeccompAction::Allow, &[]);
    for rules in [vec![conditional.clone(), always.clone()], vec![always, conditional]] {
        let program = compile(&policy(SeccompAction::Errno, rules)).expect("compile").instructions;
        assert_eq!(run(&program, &Call::native(41, first(1))), ALLOW);
    }
}

#[test]
fn unknown_system_calls_are_ignored_and_reported() {
    let p = policy(SeccompAction::Errno, vec![rule(&["read", "no_such_call", "stat64"], SeccompAction::Allow, &[])]);
    assert_eq!(compile(&p).expect("compile").unknown, ["no_such_call", "stat64"]);
    let with_i386 = LinuxSeccomp { architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"].map(Into::into).into(), ..p };
    assert_eq!(compile(&with_i386).expect("compile").unknown, ["no_such_call"]);
}

#[test]
fn policies_that_cannot_be_kept_are_refused_by_name() {
    let with = |change: fn(&mut LinuxSeccomp)| {
        let mut p = policy(SeccompAction::Errno, vec![rule(&["read"], SeccompAction::Allow, &[])]);
        change(&mut p);
        compile(&p).expect_err("refused").to_string()
    };
    assert!(with(|p| p.architectures = vec!["amd64".into()]).contains("no architecture"));
    assert!(with(|p| p.flags = Some(vec!["FAST".into()])).contains("no flag"));
    assert!(with(|p| p.default_errno_ret = Some(4096)).contains("more than 4095"));
    assert!(with(|p| p.syscalls[0].errno_ret = Some(1)).contains("returns no errno"));
    assert!(
        with(|p| p.syscalls[0] = rule(&["read"], SeccompAction::Log, &[(6, SeccompOp::Equal, 0, 0)]))
            .contains("0 to 5")
    );
    assert!(with(|p| p.syscalls[0] = rule(&["write"], SeccompAction::Notify, &[])).contains("would block for good"));
    assert!(with(|p| p.default_action = SeccompAction::Notify).contains("would block for good"));
    let nobody = with(|p| {
        p.syscalls[0].action = SeccompAction::Notify;
        p.listener_path = None;
    });
    assert!(nobody.contains("listenerPath is not set"), "{nobody}");
    assert!(with(|p| p.syscalls = vec![rule(&["read"; 20_000], SeccompAction::Allow, &[])]).contains("the limit is"));
    let many = |p: &mut LinuxSeccomp| {
        p.syscalls = (0..2000).map(|v| rule(&["read"], SeccompAction::Allow, &[(0, SeccompOp::Equal, v, 0)])).collect();
    };
    assert!(with(many).contains("the kernel takes 4096"));
}

#[test]
fn far_jumps_reach_their_target() {
    let one = |v| {
        rule(
            &["socket", "connect", "bind"],
            SeccompAction::Log,
            &[(0, SeccompOp::Equal, v, 0), (1, SeccompOp::GreaterThan, v, 0)],
        )
    };
    let p = policy(SeccompAction::Errno, (0..150).map(one).collect());
    let program = compile(&p).expect("compile").instructions;
    check(&program);
    assert!(program.len() > 2000);
    let direct = Direct::new(&p);
    for nr in [40, 41, 42, 49, 50] {
        for v in [0, 1, 75, 149, 150] {
            for second in [0, v, v + 1] {
                let call = Call::native(nr, [v, second, 0, 0, 0, 0]);
                assert_eq!(run(&program, &call), direct.answer(&call), "{call:?}");
            }
        }
    }
}

#[test]
fn the_default_policy_answers_as_it_reads() {
    for caps in [&[][..], &["CAP_SYS_ADMIN", "CAP_NET_RAW"]] {
        let p = default_policy(caps);
        let compiled = compile(&p).expect("compile");
        check(&compiled.instructions);
        assert_eq!(compiled.unknown, Vec::<String>::new(), "names that this table lacks");
        let direct = Direct::new(&p);
        assert!(compiled.instructions.len() < 600, "{} instructions", compiled.instructions.len());
        for nr in (0..500).chain([0x3fff_ffff, 0x4000_0000, u32::MAX]) {
            for arg in [0, 1, 2, 8, 10, 16, 17, 46, 0x2000_0000, 0xffff_ffff, 1 << 32 | 17, u64::MAX] {
                let call = Call::native(nr, first(arg));
                assert_eq!(run(&compiled.instructions, &call), direct.answer(&call), "{call:?}");
            }
        }
    }
}

/// Runs `body` in a thread of its own under a filter, which ends with the thread.
fn confined<T: Send + 'static>(policy: &LinuxSeccomp, body: fn() -> T) -> T {
    let program = compile(policy).expect("compile");
    let thread = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).expect("no_new_privs");
        onggi_sys::seccomp::load(&program.instructions, program.flags).expect("the kernel takes the filter");
        body()
    });
    thread.join().expect("thread")
}

#[test]
fn the_kernel_takes_the_default_policy_and_answers_as_it_reads() {
    use rustix::{io::Errno, net::*};
    let answers = confined(&default_policy(&onggi_spec::capability::DEFAULT), || {
        let open = |family| socket(family, SocketType::DGRAM, None).map(drop).err();
        // Refused before the kernel looks at its arguments, which would be EINVAL.
        let hostname = rustix::system::sethostname(&[0; 100]).err();
        (open(AddressFamily::INET), open(AddressFamily::PACKET), hostname)
    });
    assert_eq!(answers, (None, Some(Errno::AFNOSUPPORT), Some(Errno::PERM)));
}

#[test]
fn the_kernel_takes_the_longest_conditions() {
    let one = |v| {
        rule(&["socket", "bind"], SeccompAction::Errno, &[(0, SeccompOp::Equal, v, 0), (1, SeccompOp::LessThan, v, 0)])
    };
    let p = policy(SeccompAction::Allow, (100..280).map(one).collect());
    let pid = confined(&p, || rustix::process::getpid().as_raw_nonzero().get());
    assert_eq!(pid, std::process::id() as i32);
}

/// After a change of the default policy or of the compiler: `ONGGI_BLESS=1 cargo test -p onggi-sandbox built_in`.
#[test]
fn the_built_in_program_is_that_of_the_default_policy() {
    let p = default_policy(&onggi_spec::capability::DEFAULT);
    let current = encode(&compile(&p).expect("compile"), fingerprint(&p));
    if std::env::var_os("ONGGI_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/seccomp/default.bpf");
        std::fs::write(path, &current).expect("write");
        return;
    }
    assert!(super::BUILT_IN == current, "default.bpf is old: run this test with ONGGI_BLESS=1");
    assert_eq!(program(&p), compile(&p));
}

#[test]
fn another_policy_is_compiled() {
    let p = default_policy(&["CAP_SYS_ADMIN"]);
    assert_eq!(program(&p), compile(&p));
}

#[test]
fn a_stored_program_comes_back_only_whole_and_for_its_own_policy() {
    let p = default_policy(&[]);
    let program = compile(&p).expect("compile");
    let bytes = encode(&program, fingerprint(&p));
    assert_eq!(decode(&bytes, fingerprint(&p)), Ok(program));
    let other = fingerprint(&default_policy(&["CAP_SYS_ADMIN"]));
    assert_eq!(decode(&bytes, other), Err(SeccompError::Stored { reason: "it belongs to another policy" }));
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length], fingerprint(&p)).is_err());
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        assert!(decode(&changed, fingerprint(&p)).is_err(), "byte {at}");
    }
}

#[test]
fn every_part_of_a_policy_changes_its_fingerprint() {
    let base = policy(
        SeccompAction::Errno,
        vec![rule(&["read", "write"], SeccompAction::Log, &[(0, SeccompOp::Equal, 1, 0)])],
    );
    let changes: [fn(&mut LinuxSeccomp); 10] = [
        |p| p.default_action = SeccompAction::Allow,
        |p| p.default_errno_ret = Some(1),
        |p| p.architectures = vec!["SCMP_ARCH_X86".into()],
        |p| p.flags = Some(vec!["SECCOMP_FILTER_FLAG_LOG".into()]),
        |p| p.syscalls[0].names = vec!["readwrite".into()],
        |p| p.syscalls[0].errno_ret = Some(0),
        |p| p.syscalls[0].args[0].op = SeccompOp::NotEqual,
        |p| p.syscalls[0].args[0].value = 2,
        |p| p.syscalls[0].args[0].value_two = None,
        |p| p.syscalls.clear(),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut p = base.clone();
        change(&mut p);
        assert_ne!(fingerprint(&p), fingerprint(&base), "change {n}");
    }
    assert_eq!(fingerprint(&base), fingerprint(&LinuxSeccomp { listener_path: Some("/x".into()), ..base }));
}

/// Names on all interfaces, on some, on none.
const NAMES: [&str; 16] = [
    "read",
    "write",
    "open",
    "close",
    "ioctl",
    "socket",
    "sendto",
    "shmget",
    "clone",
    "clone3",
    "personality",
    "stat64",
    "rt_sigaction",
    "mseal",
    "no_such_call",
    "waitpid",
];

/// Values on both sides of every boundary that halves and masks have.
const VALUES: [u64; 14] = [
    0,
    1,
    2,
    11,
    0x1_0017,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    (1 << 32) + 1,
    0xffff_ffff_0000_0000,
    0xdead_beef_0000_0001,
    u64::MAX - 1,
    u64::MAX,
];

fn actions() -> impl Strategy<Value = (SeccompAction, Option<u32>)> {
    use SeccompAction::*;
    prop_oneof![
        select(vec![Kill, KillProcess, KillThread, Trap, Allow, Log]).prop_map(|a| (a, None)),
        (select(vec![Errno, Trace]), prop::option::of(0u32..4096)),
    ]
}

fn arguments() -> impl Strategy<Value = LinuxSeccompArg> {
    use SeccompOp::*;
    let op = select(vec![NotEqual, LessThan, LessOrEqual, Equal, GreaterOrEqual, GreaterThan, MaskedEqual]);
    (0u32..6, select(VALUES.to_vec()), select(VALUES.to_vec()), op)
        .prop_map(|(index, value, two, op)| LinuxSeccompArg { index, value, value_two: Some(two), op })
}

fn rules() -> impl Strategy<Value = LinuxSyscall> {
    (vec(select(NAMES.to_vec()), 1..4), actions(), prop_oneof![Just(vec![]), vec(arguments(), 1..4)]).prop_map(
        |(names, (action, errno_ret), args)| LinuxSyscall {
            names: names.into_iter().map(Into::into).collect(),
            action,
            errno_ret,
            args,
        },
    )
}

fn policies() -> impl Strategy<Value = LinuxSeccomp> {
    let archs = prop::sample::subsequence(vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], 0..=3);
    (actions(), archs, vec(rules(), 0..24)).prop_map(|((action, errno), archs, syscalls)| LinuxSeccomp {
        default_errno_ret: errno,
        architectures: archs.into_iter().map(Into::into).collect(),
        ..policy(action, syscalls)
    })
}

fn calls() -> impl Strategy<Value = Call> {
    let named = select(NAMES.to_vec()).prop_map(|name| {
        let find = |t: &[(&str, u16)]| t.iter().find(|(n, _)| *n == name).map(|(_, v)| u32::from(*v));
        find(super::table::X86_64).or(find(super::table::I386)).unwrap_or(7)
    });
    let number =
        prop_oneof![4 => named, 1 => select(vec![102u32, 117]), 2 => 0u32..520, 1 => any::<u32>(), 1 => Just(u32::MAX)];
    let x32 = prop_oneof![3 => Just(0u32), 1 => Just(0x4000_0000)];
    let arch = prop_oneof![4 => Just(X86_64), 2 => Just(I386), 1 => any::<u32>()];
    let value = || prop_oneof![3 => select(VALUES.to_vec()), 1 => any::<u64>()];
    (arch, number, x32, [value(), value(), value(), value(), value(), value()]).prop_map(|(arch, nr, x32, args)| Call {
        arch,
        nr: nr | x32,
        args,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_compiled_policy_answers_like_the_policy_itself(p in policies(), calls in vec(calls(), 40)) {
        let program = compile(&p).expect("compile").instructions;
        check(&program);
        let direct = Direct::new(&p);
        for call in &calls {
            prop_assert_eq!(run(&program, call), direct.answer(call), "{:?}", call);
        }
    }

    #[test]
    fn stored_bytes_of_any_kind_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes, fingerprint(&default_policy(&[]))).is_err());
    }
}
