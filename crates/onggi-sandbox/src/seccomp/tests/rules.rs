//! How single rules, defaults and flags are read: where runc, crun and libseccomp agree, so do we.

use onggi_spec::oci::runtime::{LinuxSeccomp, SeccompAction, SeccompOp};

use super::{
    super::{ACTIONS, FLAGS, OPERATORS, architectures, compile},
    ALLOW, Call, ERRNO, I386, X86_64, first, policy, rule, run,
};

#[test]
fn of_two_conditions_on_one_argument_one_is_enough() {
    let is = |v| (0, SeccompOp::Equal, v, 0);
    let refused = rule(&["socket"], SeccompAction::Errno, &[is(16), is(17), (1, SeccompOp::Equal, 3, 0)]);
    let program = compile(&policy(SeccompAction::Allow, vec![refused])).expect("compile").instructions;
    let families = [1, 16, 17, 40].map(|f| run(&program, &Call::native(41, first(f))));
    assert_eq!(families, [ALLOW, ERRNO | 1, ERRNO | 1, ALLOW]);
    assert_eq!(run(&program, &Call::native(41, [1, 3, 0, 0, 0, 0])), ERRNO | 1);
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let both = rule(&["socket"], SeccompAction::Errno, &[(0, SeccompOp::Equal, 16, 0), (2, SeccompOp::Equal, 9, 0)]);
    let program = compile(&policy(SeccompAction::Allow, vec![both])).expect("compile").instructions;
    let answers =
        [[16, 0, 9], [16, 0, 8], [2, 0, 9]].map(|[a, b, c]| run(&program, &Call::native(41, [a, b, c, 0, 0, 0])));
    assert_eq!(answers, [ERRNO | 1, ALLOW, ALLOW]);
}

#[test]
fn every_forbidding_default_lets_programs_fall_back_from_newer_calls() {
    for (default, beyond) in [
        (SeccompAction::KillProcess, ERRNO | 38),
        (SeccompAction::Trap, ERRNO | 38),
        (SeccompAction::Log, 0x7ffc_0000),
        (SeccompAction::Trace, 0x7ff0_0001),
    ] {
        let p = policy(default, vec![rule(&["read"], SeccompAction::Allow, &[])]);
        let program = compile(&p).expect("compile").instructions;
        assert_eq!(run(&program, &Call::native(460, [0; 6])), beyond, "{default:?}");
    }
}

#[test]
fn flags_are_those_of_the_document_and_spec_allow_without_a_list() {
    let flags = |list: Option<&[&str]>, action| {
        let mut p = policy(SeccompAction::Allow, vec![rule(&["mkdir"], action, &[])]);
        p.flags = list.map(|l| l.iter().map(ToString::to_string).collect());
        compile(&p).expect("compile").flags
    };
    let errno = SeccompAction::Errno;
    assert_eq!((flags(None, errno), flags(Some(&[]), errno)), (4, 0));
    let all = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
    assert_eq!((flags(Some(&all[..1]), errno), flags(Some(&all[..2]), errno), flags(Some(&all), errno)), (0, 2, 6));
    // Waiting needs somebody to wait for.
    let wait: &[&str] = &["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"];
    assert_eq!((flags(Some(wait), errno), flags(Some(wait), SeccompAction::Notify)), (0, 40));
    assert_eq!(flags(None, SeccompAction::Notify), 12);
}

#[test]
fn every_name_that_features_lists_is_understood() {
    let of = |text: String| serde_json::from_str::<LinuxSeccomp>(&text).map(|p| compile(&p));
    for name in ACTIONS.iter().filter(|n| **n != "SCMP_ACT_NOTIFY") {
        of(format!(r#"{{"defaultAction":"{name}"}}"#)).expect("known").expect("compiled");
    }
    for op in OPERATORS {
        let rule =
            format!(r#"{{"names":["read"],"action":"SCMP_ACT_LOG","args":[{{"index":0,"value":1,"op":"{op}"}}]}}"#);
        of(format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#)).expect("known").expect("compiled");
    }
    for arch in architectures() {
        of(format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["{arch}"]}}"#)).expect("known").expect("ok");
    }
    for (flag, _) in FLAGS {
        of(format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","flags":["{flag}"]}}"#)).expect("known").expect("compiled");
    }
}

#[test]
fn what_is_said_of_sockets_holds_for_the_calls_of_32_bit_programs_that_stand_for_many() {
    let forbid = |args| rule(&["socket", "shmget"], SeccompAction::Errno, args);
    let with = |rule, default| {
        let p = LinuxSeccomp { architectures: vec!["SCMP_ARCH_X86".into()], ..policy(default, vec![rule]) };
        compile(&p).expect("compile").instructions
    };
    let i386 = |program: &[_], nr, which| run(program, &Call { arch: I386, nr, args: first(which) });
    for args in [&[][..], &[(0, SeccompOp::Equal, 40, 0)]] {
        let program = with(forbid(args), SeccompAction::Allow);
        // socketcall(SYS_SOCKET), socketcall(SYS_BIND), ipc(SHMGET), the same with a version.
        let answers = [(102, 1), (102, 2), (117, 23), (117, 0x1_0017)].map(|(nr, which)| i386(&program, nr, which));
        assert_eq!(answers, [ERRNO | 1, ALLOW, ERRNO | 1, ERRNO | 1], "{args:?}");
        assert_eq!(run(&program, &Call::native(102, first(1))), ALLOW, "getuid of 64-bit programs");
    }
    let allow = |args| with(rule(&["socket"], SeccompAction::Allow, args), SeccompAction::Errno);
    assert_eq!(i386(&allow(&[]), 102, 1), ALLOW);
    assert_eq!(i386(&allow(&[(0, SeccompOp::NotEqual, 40, 0)]), 102, 1), ERRNO | 1, "nobody can see the family");
}

#[test]
fn conditions_are_about_32_bits_where_arguments_have_no_more() {
    let minus_one = rule(&["ioctl"], SeccompAction::Errno, &[(1, SeccompOp::Equal, u64::MAX, 0)]);
    let p = LinuxSeccomp {
        architectures: vec!["SCMP_ARCH_X86".into(), "SCMP_ARCH_X32".into()],
        ..policy(SeccompAction::Allow, vec![minus_one])
    };
    let program = compile(&p).expect("compile").instructions;
    let at = |arch, nr, value| run(&program, &Call { arch, nr, args: [0, value, 0, 0, 0, 0] });
    assert_eq!((at(I386, 54, 0xffff_ffff), at(I386, 54, 0xffff_fffe)), (ERRNO | 1, ALLOW));
    assert_eq!(at(X86_64, 0x4000_0000 | 514, 0xffff_ffff), ERRNO | 1);
    assert_eq!((at(X86_64, 16, 0xffff_ffff), at(X86_64, 16, u64::MAX)), (ALLOW, ERRNO | 1));
}
