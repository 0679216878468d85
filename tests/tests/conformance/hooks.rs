//! config.md, POSIX-platform hooks: when each runs, where, and what it is given.

use std::fs;

use onggi_tests::{Bundle, Instance};
use serde_json::{Value, json};

use crate::{
    compare::{Known, known_beside_a_race, same, same_but},
    probe::{View, normalise},
};

const ALL: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Appends what the hook sees to a file, which in the container is the same one by a bind mount.
const RECORD: &str = r#"
{
echo "@@ $0 $*"
echo "== env"; tr '\0' '\n' < /proc/$$/environ | sort
echo "== cwd"; pwd
echo "== root"; [ -e /rootfs-marker ] && echo container || echo host
echo "== ns"; for n in mnt net pid uts ipc user cgroup; do readlink /proc/$$/ns/$n; done
echo "== uid"; id -u; id -G
echo "== caps"; grep -e ^CapEff -e ^NoNew -e ^Seccomp: /proc/$$/status
echo "== fds"; ls /proc/$$/fd | sort -n | head -3 | tr '\n' ' '
echo "== stdin"; cat; echo
} >> "$1" 2>&1
"#;

/// One observation per hook and section.
fn records(text: &str, bundle: &Bundle, id: &str, pid: u64) -> View {
    let mut view = View::new();
    let mut order = Vec::new();
    for record in text.split("@@ ").skip(1) {
        let (head, body) = record.split_once('\n').unwrap_or((record, ""));
        let name = head.split(' ').next().unwrap_or_default().to_owned();
        view.insert(format!("{name} argv"), normalise(head, bundle, id));
        order.push(name.clone());
        for section in body.split("== ").skip(1) {
            let (section, text) = section.split_once('\n').unwrap_or((section, ""));
            match section {
                "stdin" => state(&mut view, &name, text, bundle, id, pid),
                "ns" => namespaces(&mut view, &name, text),
                _ => {
                    view.insert(format!("{name} {section}"), normalise(text.trim_end(), bundle, id));
                }
            }
        }
    }
    // runc and crun run poststart hooks beside the process's start, in any order with startContainer hooks.
    order.retain(|name| name != "poststart");
    view.insert("order".to_owned(), order.join(" "));
    view
}

fn state(view: &mut View, name: &str, text: &str, bundle: &Bundle, id: &str, pid: u64) {
    let Ok(Value::Object(state)) = serde_json::from_str(text) else {
        view.insert(format!("{name} state"), format!("not JSON: {text:?}"));
        return;
    };
    for field in ["ociVersion", "id", "status", "pid", "bundle", "annotations"] {
        let value = state.get(field).map_or("(absent)".to_owned(), Value::to_string);
        let value = match field {
            "pid" if value == pid.to_string() => "the container's".to_owned(),
            "ociVersion" => value.starts_with("\"1.").to_string(),
            _ => normalise(&value, bundle, id),
        };
        view.insert(format!("{name} state {field}"), value);
    }
}

fn namespaces(view: &mut View, name: &str, text: &str) {
    for line in text.lines() {
        let kind = line.split(':').next().unwrap_or_default();
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        let whose = if host.to_string_lossy() == line { "host" } else { "container" };
        view.insert(format!("{name} namespace {kind}"), whose.to_owned());
    }
}

/// A bundle with hooks that record into the file `hooks` of the bundle.
fn recording(names: &[&str], hook: impl Fn(&str, &str) -> Value) -> Bundle {
    let mut bundle = Bundle::script("echo up; exec sleep 1000");
    let record = bundle.file("hooks", 0o666, "");
    bundle.file("rootfs/rootfs-marker", 0o644, "");
    bundle.file("record", 0o755, RECORD);
    let file = record.display().to_string();
    let inside = bundle.rootfs().join("record");
    fs::copy(bundle.path().join("record"), inside).unwrap();
    bundle.config["annotations"] = json!({ "org.example.key": "value", "empty": "" });
    // The same path in the container, so that createContainer and startContainer reach it.
    bundle.mount(json!({ "destination": file, "type": "bind", "source": file, "options": ["bind"] }));
    for name in names {
        bundle.config["hooks"][*name] = json!([hook(name, &file)]);
    }
    bundle
}

fn plain(name: &str, file: &str) -> Value {
    json!({
        "path": "/bin/sh", "args": ["sh", "-c", RECORD, name, file, "last word"],
        "env": ["PATH=/usr/bin:/bin", "HOOK=yes"]
    })
}

fn life(instance: &Instance, bundle: &Bundle) -> View {
    let id = instance.id("hooks");
    instance.create(bundle, &id);
    let pid = instance.pid(&id);
    let record = bundle.path().join("hooks");
    let after_create = fs::read_to_string(&record).unwrap();
    instance.ok(&["start", &id]);
    let after_start = fs::read_to_string(&record).unwrap();
    // crun's start does not wait for the process, which runs its last hooks by itself.
    instance.wait_stdout(&id, "up");
    let count = |text: &str| text.matches("@@ ").count();
    onggi_tests::eventually("the hooks of start have run", || {
        let text = fs::read_to_string(&record).unwrap();
        (count(&text)
            == bundle.config["hooks"]
                .as_object()
                .map_or(0, |hooks| hooks.len() - usize::from(hooks.contains_key("poststop"))))
        .then_some(())
    });
    instance.ok(&["kill", &id, "KILL"]);
    instance.wait_status(&id, "stopped");
    instance.ok(&["delete", &id]);
    let all = fs::read_to_string(&record).unwrap();
    let mut view = records(&all, bundle, &id, pid.into());
    view.insert("hooks that ran by the end of create".to_owned(), count(&after_create).to_string());
    view.insert("hooks that ran by the end of start".to_owned(), count(&after_start).to_string());
    view
}

#[test]
fn conformance_hooks_get_state_arguments_environment_and_namespaces() {
    same_but(&[known_beside_a_race("poststart state status", "\"running\"", "D-poststart")], |instance| {
        life(instance, &recording(&ALL, plain))
    });
}

#[test]
fn conformance_hooks_run_in_order_with_run() {
    same(|instance| {
        let mut bundle = recording(&ALL, plain);
        bundle.args(&["true"]);
        let id = instance.id("hooks");
        let ran = instance.run_bundle(&bundle, &id);
        let text = fs::read_to_string(bundle.path().join("hooks")).unwrap();
        let mut view = View::from([("exit".to_owned(), format!("{:?}", ran.code))]);
        view.insert("order".to_owned(), records(&text, &bundle, &id, 0)["order"].clone());
        view
    });
}

#[test]
fn conformance_hooks_environment_is_only_what_was_given() {
    // Without a list hooks have the runtime's own environment.
    for env in [json!([]), json!(["ONLY=this"]), Value::Null] {
        same(|instance| {
            life(
                instance,
                &recording(
                    &["createRuntime", "poststop"],
                    |name, file| json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("PATH=/usr/bin:/bin\n{RECORD}"), name, file], "env": env }),
                ),
            )
        });
    }
}

/// What is left and what is said when a hook of this kind fails or is too slow.
fn failing(instance: &Instance, name: &str, hook: &Value) -> View {
    let mut bundle = Bundle::new(&["sh", "-c", "echo ran; exec sleep 1000"]);
    let stopped = bundle.path().join("poststop-ran");
    bundle.config["hooks"][name] = json!([hook]);
    if name != "poststop" {
        let script = format!("touch {}", stopped.display());
        bundle.config["hooks"]["poststop"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    }
    let id = instance.id("failing");
    let mut view = View::new();
    let mut step = |step: &str, ran: onggi_tests::Ran| {
        view.insert(format!("{step} succeeds"), (ran.code == Some(0)).to_string());
        view.insert(format!("~{step}"), instance.explain(&ran));
        ran.code == Some(0)
    };
    let created = step("create", instance.make(&bundle, &id, "create", &[]));
    let started = created && step("start", instance.run(&["start", &id]));
    if started {
        // A poststart hook that failed may have ended it before it could say so; with runc, a startContainer
        // hook fails when `start` has ended already.
        if !["startContainer", "poststart"].contains(&name) {
            instance.wait_stdout(&id, "ran");
        }
        instance.run(&["kill", &id, "KILL"]);
        instance.wait_status(&id, "stopped");
    }
    if created {
        step("delete", instance.run(&["delete", "--force", &id]));
    }
    let status = instance.status(&id);
    view.insert("status afterwards".to_owned(), status.unwrap_or_else(|| "(none)".to_owned()));
    if name != "poststart" {
        view.insert("process ran".to_owned(), instance.stdout(&id).contains("ran").to_string());
    }
    view.insert("poststop ran".to_owned(), stopped.exists().to_string());
    view
}

#[test]
fn conformance_hooks_that_fail() {
    // "The runtime MUST generate an error": with runc and crun, `start` has ended when these hooks run, or has
    // not begun (runc runs poststart hooks within `create`).
    for name in ALL {
        let known: &[Known] = match name {
            "startContainer" => &[known_beside_a_race("start succeeds", "false", "D-start-container-hook")],
            "poststart" => &[known_beside_a_race("start succeeds", "false", "D-poststart")],
            _ => &[],
        };
        same_but(known, |instance| failing(instance, name, &json!({ "path": "/bin/false", "args": ["false"] })));
    }
}

#[test]
fn conformance_hooks_that_are_missing_or_relative() {
    same(|instance| failing(instance, "createRuntime", &json!({ "path": "/no/such/hook" })));
    same_but(&[known_beside_a_race("start succeeds", "false", "D-poststart")], |instance| {
        failing(instance, "poststart", &json!({ "path": "/no/such/hook" }))
    });
    // Refused before anything was made, so there is nothing that poststop hooks would undo.
    for name in ["createRuntime", "poststart"] {
        same_but(&[known_beside_a_race("poststop ran", "false", "D-hook-path")], |instance| {
            failing(instance, name, &json!({ "path": "bin/true" }))
        });
    }
}

#[test]
fn conformance_hooks_that_take_longer_than_their_timeout() {
    for name in ["createRuntime", "createContainer"] {
        same(|instance| {
            failing(instance, name, &json!({ "path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1 }))
        });
    }
}

#[test]
fn conformance_hooks_that_do_not_read_their_stdin() {
    same(|instance| failing(instance, "createRuntime", &json!({ "path": "/bin/true", "args": ["true"] })));
}
