//! Tests of the parent module.

use super::*;

#[test]
fn go_style_nulls_and_unknown_members_are_accepted() {
    let spec = Spec::from_slice(
        br#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":null,"user":{"uid":1,"gid":2,"additionalGids":null,"username":"x"}},
        "root":{"path":"rootfs"},"mounts":null,"linux":{"namespaces":[{"type":"network","path":"/x"}],"maskedPaths":null,"x-new":1}}"#,
    )
    .expect("parses");
    assert_eq!(spec.process.map(|p| p.user.uid), Some(1));
    assert_eq!(spec.linux.map(|l| l.namespaces[0].typ), Some(LinuxNamespaceType::Network));
}

#[test]
fn wrong_types_and_unknown_kinds_are_refused() {
    for bad in [
        r#"{}"#,
        r#"{"ociVersion":1}"#,
        r#"{"ociVersion":"1","root":{}}"#,
        r#"{"ociVersion":"1","linux":{"namespaces":[{"type":"networks"}]}}"#,
        r#"{"ociVersion":"1","process":{"cwd":"/","user":{"uid":-1}}}"#,
        r#"{"ociVersion":"1","process":{"cwd":"/","user":{"uid":4294967296}}}"#,
        r#"{"ociVersion":"1","linux":{"seccomp":{"defaultAction":"SCMP_ACT_MAYBE"}}}"#,
        r#"{"ociVersion":"1"} x"#,
    ] {
        assert!(Spec::from_slice(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(Spec::from_slice(&vec![b' '; MAX_CONFIG + 1]).is_err());
}

#[test]
fn every_field_survives_a_round_trip_under_its_specified_name() {
    let text = include_str!("full.json");
    let spec = Spec::from_slice(text.as_bytes()).expect("parses");
    let again: serde_json::Value = serde_json::to_value(&spec).expect("serialises");
    let want: serde_json::Value = serde_json::from_str(text).expect("is JSON");
    assert_eq!(again, want);
}
