//! How single rules, defaults and flags are read: where runc, crun and libseccomp agree, so do we.

use onggi_spec::oci::runtime::{LinuxSeccomp, SeccompAction, SeccompOp};

use super::{
    super::{ACTIONS, FLAGS, OPERATORS, architectures, compile},
    ALLOW, Call, ERRNO, first, policy, rule, run,
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
