//! Hooks: where they run, what they are told, what their failure means (config.md, runtime.md "Lifecycle").

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Bundle, cgroups_of};

fn shell(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script] })
}

#[test]
fn root_a_failing_hook_is_named_ends_the_container_and_poststop_hooks_run() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let mut b = Bundle::new("sleep 60");
        let log = b.dir.join("stopped");
        // In the container /bin/false is busybox's.
        b.config["hooks"] = json!({
            kind: [{ "path": "/bin/true" }, { "path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 7"] }],
            "poststop": [shell(&format!("cat > {}", log.display()))]
        });
        let done = b.run();
        assert_ne!(done.code, 0, "{kind}");
        let text = format!("error running {kind} hook #1:");
        assert!(done.err.contains(&text) && done.err.contains("exit status 7"), "{}", done.err);
        assert!(done.err.contains("stderr: why"), "{}", done.err);
        assert_eq!(b.status(), "absent");
        let state: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
        assert_eq!((state["status"].as_str(), state["id"].as_str()), (Some("stopped"), Some(b.id.as_str())), "{kind}");
    }
}

#[test]
fn root_a_failing_hook_of_start_destroys_the_container() {
    for kind in ["startContainer", "poststart"] {
        let mut b = Bundle::new("sleep 60");
        let log = b.dir.join("poststop");
        let last = shell(&format!("cat > {}", log.display()));
        b.config["hooks"] = json!({ kind: [{ "path": "/bin/false" }], "poststop": [last] });
        assert_eq!(b.create().code, 0);
        let done = b.verb("start", &[]);
        let words = format!("error running {kind} hook #0:");
        assert!(done.code == 1 && done.err.contains(&words), "{}", done.err);
        assert_eq!(b.status(), "absent");
        assert!(fs::read_to_string(log).unwrap().contains("stopped"), "{kind}: no poststop hook");
    }
}

#[test]
fn root_failing_poststop_hooks_are_warnings_and_the_others_run() {
    let mut b = Bundle::new("true");
    let log = b.dir.join("second");
    b.config["hooks"] =
        json!({ "poststop": [{ "path": "/bin/false" }, shell(&format!("echo ran > {}", log.display()))] });
    let done = b.run();
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(
        done.err.contains("poststop hook failed with exit code 1: error running poststop hook #0:"),
        "{}",
        done.err
    );
    assert_eq!(fs::read_to_string(log).unwrap(), "ran\n");
}

/// Pid, status, directory and namespaces differ by where a hook runs; the environment is the hook's own.
#[test]
fn root_hooks_see_the_state_from_where_they_run() {
    let mut b = Bundle::new("cat /cc /sc");
    let host = b.dir.join("host");
    let script = format!("{{ pwd; readlink /proc/self/ns/mnt; env; cat; }} > {}", host.display());
    b.config["hooks"] = json!({
        "createRuntime": [{ "path": "/bin/sh", "args": ["other-name", "-c", script], "env": ["A=1"] }],
        "createContainer": [shell("cat > ./cc; readlink /proc/self/ns/mnt >> ./cc")],
        "startContainer": [shell("cat > /sc")]
    });
    b.config["annotations"] = json!({ "note": "x" });
    let done = b.run();
    let host = fs::read_to_string(host).unwrap();
    let lines: Vec<&str> = host.lines().collect();
    assert_eq!(lines[0], fs::canonicalize(&b.dir).unwrap().to_str().unwrap());
    assert_eq!(lines[1], fs::read_link("/proc/self/ns/mnt").unwrap().to_str().unwrap());
    let state: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert!(state["pid"].as_i64().unwrap() > 1 && state["status"] == "creating", "{state}");
    assert_eq!(state["annotations"]["note"], "x");
    assert!(host.contains("\nA=1\n") && !host.contains("HOME="), "{host}");
    let (creating, created) = done.out.rsplit_once('\n').unwrap_or_else(|| panic!("{} {}", done.out, done.err));
    for (text, status) in [(creating, "creating"), (created, "created")] {
        let state: Value = serde_json::Deserializer::from_str(text).into_iter().next().unwrap().unwrap();
        assert_eq!((state["pid"].as_i64(), state["status"].as_str()), (Some(1), Some(status)), "{text}");
    }
    assert!(creating.contains("mnt:[") && !creating.contains(lines[1]), "{creating}");
}

#[test]
fn root_hooks_that_cannot_be_run_are_refused_before_anything_happens() {
    for (hook, text) in [
        (json!({ "path": "bin/true" }), "not absolute"),
        (json!({ "path": "/bin/true", "timeout": 0 }), "not above 0"),
        (json!({ "path": "/not/there" }), "o such file"),
    ] {
        let mut b = Bundle::new("true");
        b.config["hooks"] = json!({ "createRuntime": [hook] });
        let done = b.run();
        assert!(done.code != 0 && done.err.contains(text), "{text}: {}", done.err);
    }
}

#[test]
fn root_a_hook_that_kills_or_deletes_its_container_ends_the_create_with_that_reason() {
    let program = env!("CARGO_BIN_EXE_onggi-oci");
    for kind in ["prestart", "createRuntime"] {
        for verb in ["kill", "delete --force"] {
            let mut b = Bundle::new("echo ran");
            let signal = if verb == "kill" { "KILL" } else { "" };
            let root = b.dir.join("state");
            let script = format!("{program} --root {} {verb} {} {signal}", root.display(), b.id);
            b.config["hooks"] = json!({ kind: [shell(&script)] });
            let done = b.run();
            assert_eq!((done.code, done.out.as_str()), (1, ""), "{kind} {verb}: {}", done.err);
            assert!(done.err.contains("died while it was being made"), "{kind} {verb}: {}", done.err);
            assert_eq!(b.status(), "absent", "{kind} {verb}");
            assert_eq!(cgroups_of(&b.id), Vec::<std::path::PathBuf>::new());
        }
    }
}
