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

/// The specification requires it, or it is a value of a map.
fn is_required(pointer: &str) -> bool {
    let inside = |parents: &[&str]| parents.iter().any(|parent| pointer.contains(&format!("/{parent}/")));
    match pointer.rsplit('/').next().unwrap_or_default() {
        "path" => !inside(&["namespaces"]),
        "type" => !inside(&["mounts", "resources"]),
        "limit" => inside(&["hugepageLimits"]),
        "name" | "priority" => inside(&["priorities"]),
        "k" | "net.ipv4.ip_forward" | "memory.high" | "mlx5_1" | "eth0" | "monotonic" => true,
        name => [
            "ociVersion",
            "destination",
            "cwd",
            "hard",
            "soft",
            "policy",
            "class",
            "containerID",
            "hostID",
            "size",
            "pageSize",
            "domain",
            "defaultAction",
            "names",
            "action",
            "op",
        ]
        .contains(&name),
    }
}

/// Go programs write `null` for what they leave out, whatever its type.
#[test]
fn null_is_absent_for_every_member_that_is_not_required() {
    let full: serde_json::Value = serde_json::from_str(include_str!("full.json")).expect("is JSON");
    let mut pointers = Vec::new();
    members("", &full, &mut pointers);
    assert!(pointers.len() > 150, "{pointers:?}");
    for pointer in pointers {
        let mut document = full.clone();
        *document.pointer_mut(&pointer).expect("it is there") = serde_json::Value::Null;
        let parsed = Spec::from_slice(document.to_string().as_bytes());
        assert_eq!(parsed.is_err(), is_required(&pointer), "{pointer}: {:?}", parsed.err());
    }
}

fn members(at: &str, value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                let inner = format!("{at}/{}", name.replace('/', "~1"));
                members(&inner, value, found);
                found.push(inner);
            }
        }
        serde_json::Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, value)| members(&format!("{at}/{n}"), value, found));
        }
        _ => {}
    }
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

/// Go's decoder takes any case, and these are written so in public suites.
#[test]
fn cpus_and_sizes_of_huge_pages_have_a_second_spelling() {
    let resources = |text: &str| {
        let document = format!(r#"{{"ociVersion":"1","linux":{{"resources":{text}}}}}"#);
        Spec::from_slice(document.as_bytes()).map(|spec| spec.linux.and_then(|linux| linux.resources))
    };
    for (second, specified) in [
        (r#"{"CPU":{"Cpus":"0-1","Mems":"0"}}"#, r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#),
        (
            r#"{"hugepageLimits":[{"pagesize":"2MB","limit":1}]}"#,
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#,
        ),
    ] {
        assert_eq!(resources(second).expect(second), resources(specified).expect(specified));
    }
    assert!(resources(r#"{"CPU":{},"cpu":{}}"#).is_err(), "which one is meant?");
}

#[test]
fn every_field_survives_a_round_trip_under_its_specified_name() {
    let text = include_str!("full.json");
    let spec = Spec::from_slice(text.as_bytes()).expect("parses");
    let again: serde_json::Value = serde_json::to_value(&spec).expect("serialises");
    let want: serde_json::Value = serde_json::from_str(text).expect("is JSON");
    assert_eq!(again, want);
}
