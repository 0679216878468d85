//! `features`: whatever runc says of itself, ours says too.

use onggi_tests::{Instance, Runtime, isolated};
use serde_json::Value;

/// crun 1.8 has no `features`.
fn features(runtime: Runtime) -> Value {
    let instance: Instance = runtime.instance();
    let ran = instance.ok(&["features"]);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("features is not JSON ({error}): {ran}"))
}

/// Of libraries, of CRIU, and of the program itself.
const OF_RUNC_ALONE: [&str; 2] = ["/annotations", "/ociVersionMax"];

/// What `theirs` has and `ours` has not: members, items of lists, other values.
fn missing(at: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    if OF_RUNC_ALONE.contains(&at) {
        return;
    }
    match (theirs, ours) {
        (Value::Object(theirs), _) => {
            for (name, value) in theirs {
                missing(&format!("{at}/{name}"), value, &ours[name], found);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            found.extend(theirs.iter().filter(|item| !ours.contains(item)).map(|item| format!("{at}: {item}")));
        }
        _ if theirs == ours => {}
        _ => found.push(format!("{at}: {theirs} is {ours}")),
    }
}

#[test]
fn conformance_features_name_what_the_others_name() {
    isolated();
    let (runc, ours) = (features(Runtime::Runc), features(Runtime::Onggi));
    assert!(runc["mountOptions"].as_array().is_some_and(|o| o.len() > 40), "runc's list is there: {runc}");
    let mut found = Vec::new();
    missing("", &runc, &ours, &mut found);
    assert_eq!(found, Vec::<String>::new());
    let has = |pointer: &str, name: &str| {
        ours.pointer(pointer).and_then(Value::as_array).is_some_and(|list| list.iter().any(|item| item == name))
    };
    // What is newer than runc 1.1 (features.md of 1.3).
    assert!(
        has("/mountOptions", "tmpcopyup") && has("/mountOptions", "ridmap") && has("/mountOptions", "rnosymfollow")
    );
    assert!(has("/linux/seccomp/actions", "SCMP_ACT_NOTIFY") && has("/linux/namespaces", "time"));
    assert!(has("/linux/memoryPolicy/modes", "MPOL_BIND") && has("/linux/memoryPolicy/flags", "MPOL_F_STATIC_NODES"));
    for enabled in [
        "/linux/cgroup/systemd",
        "/linux/cgroup/systemdUser",
        "/linux/cgroup/rdma",
        "/linux/intelRdt/enabled",
        "/linux/mountExtensions/idmap/enabled",
        "/linux/netDevices/enabled",
    ] {
        assert_eq!(ours.pointer(enabled), Some(&Value::Bool(true)), "{enabled}");
    }
    assert_eq!((&ours["ociVersionMin"], &ours["ociVersionMax"]), (&Value::from("1.0.0"), &Value::from("1.3.0")));
}

/// A list that nobody can use would be worse than none.
#[test]
fn conformance_features_mount_options_are_all_accepted() {
    isolated();
    let ours = features(Runtime::Onggi);
    let instance = Runtime::Onggi.instance();
    let mut options: Vec<String> =
        ours["mountOptions"].as_array().expect("a list").iter().map(|o| o.to_string()).collect();
    options.iter_mut().for_each(|o| *o = o.trim_matches('"').to_owned());
    // Mapped ids need mappings; a bind is no tmpfs.
    options.retain(|o| !["idmap", "ridmap", "bind", "rbind", "remount"].contains(&o.as_str()));
    let mut bundle = onggi_tests::Bundle::script("grep -c ' /mnt/' /proc/self/mountinfo");
    for option in &options {
        bundle.mount(serde_json::json!({
            "destination": format!("/mnt/{option}"), "type": "tmpfs", "source": "tmpfs", "options": [option] }));
    }
    let ran = instance.run_bundle(&bundle, &instance.id("options"));
    assert_eq!(
        (ran.code, ran.stdout.trim()),
        (Some(0), options.len().to_string().as_str()),
        "{}",
        instance.explain(&ran)
    );
}
