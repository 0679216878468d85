//! runtime.md: the operations and the states between them.

use std::fs;

use onggi_tests::{Bundle, Instance, Ran};
use serde_json::{Value, json};

use crate::{
    compare::{known, same, same_but},
    probe::{View, normalise},
};

/// Exit code of each step, and what was said about it as a note.
pub(crate) struct Steps<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) view: View,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(instance: &'a Instance) -> Steps<'a> {
        Steps { instance, view: View::new() }
    }

    pub(crate) fn see(&mut self, name: &str, value: impl ToString) {
        self.view.insert(name.to_owned(), value.to_string());
    }

    pub(crate) fn ran(&mut self, name: &str, ran: &Ran) {
        self.see(&format!("{name} exit"), format!("{:?}", ran.code));
        self.see(&format!("~{name}"), self.instance.explain(ran));
    }

    pub(crate) fn run(&mut self, name: &str, args: &[&str]) -> Ran {
        let ran = self.instance.run(args);
        self.ran(name, &ran);
        ran
    }
}

/// The fields of the state that the specification names; `present` tells of the others.
fn state_fields(steps: &mut Steps<'_>, when: &str, bundle: &Bundle, id: &str) {
    let state = steps.instance.state(id);
    for field in ["ociVersion", "id", "status", "pid", "bundle", "annotations"] {
        let value = state.get(field).map_or("(absent)".to_owned(), Value::to_string);
        let value = match field {
            "ociVersion" => value.starts_with("\"1.").to_string(),
            "pid" if value != "0" && value != "(absent)" => "a number".to_owned(),
            _ => normalise(&value, bundle, id),
        };
        steps.see(&format!("{when}: {field}"), value);
    }
}

#[test]
fn conformance_state_of_created_running_paused_and_stopped() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        bundle.config["annotations"] = json!({ "org.example.a": "1", "org.example.b": "two words" });
        let id = instance.id("state");
        instance.create(&bundle, &id);
        state_fields(&mut steps, "created", &bundle, &id);
        instance.ok(&["start", &id]);
        state_fields(&mut steps, "running", &bundle, &id);
        instance.ok(&["pause", &id]);
        state_fields(&mut steps, "paused", &bundle, &id);
        instance.ok(&["resume", &id]);
        state_fields(&mut steps, "resumed", &bundle, &id);
        instance.ok(&["kill", &id, "KILL"]);
        instance.wait_status(&id, "stopped");
        state_fields(&mut steps, "stopped", &bundle, &id);
        instance.ok(&["delete", &id]);
        steps.run("state of none", &["state", &id]);
        steps.view
    });
}

#[test]
fn conformance_operations_in_a_state_that_does_not_allow_them() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let bundle = Bundle::new(&["sleep", "1000"]);
        let id = instance.id("order");
        for verb in ["start", "state", "kill", "delete", "pause", "resume", "ps"] {
            steps.run(&format!("{verb} of none"), &[verb, &id]);
        }
        steps.run("delete -f of none", &["delete", "--force", &id]);
        steps.run("exec of none", &["exec", &id, "true"]);
        instance.create(&bundle, &id);
        let again = instance.make(&bundle, &id, "create", &[]);
        steps.ran("create twice", &again);
        steps.run("delete of created", &["delete", &id]);
        steps.see("created was deleted", instance.status(&id).is_none());
        let id = instance.id("order2");
        instance.start(&bundle, &id);
        steps.run("start twice", &["start", &id]);
        steps.run("delete of running", &["delete", &id]);
        steps.run("resume of running", &["resume", &id]);
        instance.ok(&["kill", &id, "KILL"]);
        instance.wait_status(&id, "stopped");
        for verb in ["start", "kill", "pause", "resume"] {
            steps.run(&format!("{verb} of stopped"), &[verb, &id]);
        }
        steps.run("exec of stopped", &["exec", &id, "true"]);
        steps.run("ps of stopped", &["ps", &id]);
        steps.run("kill -a of stopped", &["kill", "--all", &id, "KILL"]);
        steps.run("delete of stopped", &["delete", &id]);
        steps.run("delete twice", &["delete", &id]);
        steps.view
    });
}

#[test]
fn conformance_kill_signals_by_name_and_number() {
    for signal in ["TERM", "SIGTERM", "15", "term", "KILL", "9", "USR1", "HUP", "NOSUCH", "0", "64", "RTMIN+1", "99"] {
        same(|instance| {
            let mut steps = Steps::new(instance);
            let script = "for s in TERM USR1 HUP; do trap \"echo got $s; exit 0\" $s; done; echo up; while :; do sleep 0.05; done";
            let id = instance.id("kill");
            let bundle = Bundle::script(script);
            instance.start(&bundle, &id);
            instance.wait_stdout(&id, "up\n");
            let ran = steps.run("kill", &["kill", &id, signal]);
            // The first process of a PID namespace does not die of a signal that it has no handler for, and
            // crun succeeds with some words that are no signal.
            if ran.code == Some(0) && ["TERM", "SIGTERM", "15", "KILL", "9", "USR1", "HUP"].contains(&signal) {
                instance.wait_status(&id, "stopped");
                steps.see("output", instance.stdout(&id));
            }
            steps.view
        });
    }
}

#[test]
fn conformance_kill_without_a_signal_is_term() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let id = instance.id("kill");
        let bundle = Bundle::script("trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.05; done");
        instance.start(&bundle, &id);
        instance.wait_stdout(&id, "up\n");
        steps.run("kill", &["kill", &id]);
        instance.wait_status(&id, "stopped");
        steps.see("output", instance.stdout(&id));
        steps.view
    });
}

#[test]
fn conformance_kill_of_a_created_container() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let id = instance.id("kill");
        let bundle = Bundle::new(&["sleep", "1000"]);
        instance.create(&bundle, &id);
        steps.run("kill", &["kill", &id, "KILL"]);
        instance.wait_status(&id, "stopped");
        steps.run("start", &["start", &id]);
        steps.run("delete", &["delete", &id]);
        steps.view
    });
}

#[test]
fn conformance_kill_all_reaches_every_process_of_a_shared_pid_namespace() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let mut bundle = Bundle::script("sleep 1000 & echo $!; sleep 1000 & echo $!; echo up; wait");
        bundle.without_namespace("pid");
        bundle.config["linux"]["resources"] = json!({ "pids": { "limit": 100 } });
        let id = instance.id("kill");
        instance.start(&bundle, &id);
        instance.wait_stdout(&id, "up\n");
        let others: Vec<String> = instance.stdout(&id).lines().take(2).map(str::to_owned).collect();
        // What has ended may wait for its parent as a zombie.
        let stat = |pid: &String| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = |pid: &String| stat(pid).rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let lives = |pid: &String| state(pid).is_some_and(|state| !['Z', 'X'].contains(&state));
        assert_eq!(others.iter().filter(|pid| lives(pid)).count(), 2, "before");
        steps.run("kill", &["kill", "--all", &id, "KILL"]);
        instance.wait_status(&id, "stopped");
        onggi_tests::eventually("nobody is left", || (!others.iter().any(lives)).then_some(()));
        steps.run("delete", &["delete", &id]);
        steps.see("cgroups", instance.cgroups().len());
        steps.view
    });
}

#[test]
fn conformance_pid_file_of_create_run_and_exec() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let bundle = Bundle::new(&["sleep", "1000"]);
        let file = instance.dir().join("pid");
        let path = file.display().to_string();
        for verb in ["create", "run"] {
            let id = instance.id(verb);
            let mut flags = vec!["--pid-file", path.as_str()];
            if verb == "run" {
                flags.push("--detach");
            }
            let ran = instance.make(&bundle, &id, verb, &flags);
            steps.ran(verb, &ran);
            let text = fs::read_to_string(&file).unwrap_or_default();
            steps.see(&format!("{verb}: the pid, without a line break"), text == instance.pid(&id).to_string());
            let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
            steps.see(&format!("{verb}: mode"), format!("{:o}", mode & 0o777));
        }
        let id = instance.id("run");
        fs::remove_file(&file).unwrap();
        steps.run("exec", &["exec", "--detach", "--pid-file", &path, &id, "sleep", "1000"]);
        let pid = fs::read_to_string(&file).unwrap_or_default();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        steps.see("exec: the pid of the process", comm);
        let ran = instance.make(&bundle, &instance.id("bad"), "create", &["--pid-file", "/no/such/dir/pid"]);
        steps.ran("create with a pid file in no directory", &ran);
        steps.see("container is gone", instance.status(&instance.id("bad")).is_none());
        steps.view
    });
}

#[test]
fn conformance_run_passes_exit_codes_and_signals_on() {
    for script in ["exit 0", "exit 3", "exit 255", "kill -KILL $$", "kill -TERM $$", "kill -SEGV $$"] {
        same(|instance| {
            let mut steps = Steps::new(instance);
            let mut bundle = Bundle::script(script);
            // A first process of a PID namespace does not get these signals from itself.
            bundle.without_namespace("pid");
            let id = instance.id("code");
            let ran = instance.run_bundle(&bundle, &id);
            steps.ran("run", &ran);
            steps.see("gone", instance.status(&id).is_none());
            steps.view
        });
    }
}

#[test]
fn conformance_run_keep_leaves_a_stopped_container() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let id = instance.id("keep");
        let bundle = Bundle::new(&["true"]);
        let ran = instance.make(&bundle, &id, "run", &["--keep"]);
        steps.ran("run", &ran);
        steps.see("status", instance.status(&id).unwrap_or_default());
        steps.run("delete", &["delete", &id]);
        steps.view
    });
}

#[test]
fn conformance_run_detached_returns_at_once() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let id = instance.id("detach");
        let bundle = Bundle::script("echo up; exec sleep 1000");
        let ran = instance.make(&bundle, &id, "run", &["--detach"]);
        steps.ran("run", &ran);
        instance.wait_stdout(&id, "up\n");
        steps.see("status", instance.status(&id).unwrap_or_default());
        steps.view
    });
}

#[test]
fn conformance_ids_that_are_and_are_not_allowed() {
    // What a directory can be called, and one more.
    let long = ["i".repeat(255), "i".repeat(256)];
    let odd = ["", "a/b", "../x", ".", "..", "with space", "ünïcode", "a:b", "UPPER_1.2-3+x", "-dash", "a\nb"];
    for id in odd.into_iter().chain(long.iter().map(String::as_str)) {
        same(|instance| {
            let mut steps = Steps::new(instance);
            let mut bundle = Bundle::new(&["true"]);
            // The same id three times at once: not in one cgroup.
            bundle.config["linux"]["cgroupsPath"] = json!(format!("/{}", instance.id("named")));
            bundle.write();
            let mut command = instance.command(&["run", "--bundle"]);
            // After `--`, what begins with a dash is an id as well.
            command.arg(bundle.path()).arg("--").arg(id);
            let ran = instance.finish(&mut command);
            steps.ran("run", &ran);
            steps.view
        });
    }
}

#[test]
fn conformance_bundle_is_the_working_directory_by_default() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let bundle = Bundle::script("echo found");
        bundle.write();
        let mut command = instance.command(&["run", &instance.id("here")]);
        command.current_dir(bundle.path());
        let ran = instance.finish(&mut command);
        steps.ran("run", &ran);
        steps.see("output", ran.stdout);
        steps.run("no bundle", &["run", "--bundle", "/no/such/bundle", &instance.id("none")]);
        fs::remove_file(bundle.path().join("config.json")).unwrap();
        let path = bundle.path().display().to_string();
        steps.run("no config", &["run", "--bundle", &path, &instance.id("none2")]);
        for text in ["", "{", "[]", "{\"ociVersion\": 1}"] {
            fs::write(bundle.path().join("config.json"), text).unwrap();
            steps.run(&format!("config {text:?}"), &["run", "--bundle", &path, &instance.id("none3")]);
        }
        steps.view
    });
}

#[test]
fn conformance_bundle_named_by_a_link() {
    same_but(&[known("bundle in the state", "the link", "D-bundle-link")], |instance| {
        let mut steps = Steps::new(instance);
        let bundle = Bundle::new(&["true"]);
        bundle.write();
        let link = bundle.path().join("link");
        std::os::unix::fs::symlink(".", &link).unwrap();
        let (link, id) = (link.display().to_string(), instance.id("linked"));
        steps.run("create", &["create", "--bundle", &link, &id]);
        let state: Value = serde_json::from_str(&instance.run(&["state", &id]).stdout).unwrap();
        let shown = if state["bundle"] == link.as_str() { "the link" } else { "the directory" };
        steps.see("bundle in the state", shown);
        steps.run("delete", &["delete", "--force", &id]);
        steps.view
    });
}

#[test]
fn conformance_config_version_and_unknown_fields() {
    for version in ["1.0.0", "1.0.2", "1.0.2-dev", "1.1.0", "0.1.0", "2.0.0", "", "garbage"] {
        same(|instance| {
            let mut steps = Steps::new(instance);
            let mut bundle = Bundle::new(&["true"]);
            bundle.config["ociVersion"] = json!(version);
            bundle.config["org.example.unknown"] = json!({ "deep": [1, 2] });
            bundle.config["linux"]["unknown"] = json!(true);
            let ran = instance.run_bundle(&bundle, &instance.id("version"));
            steps.ran("run", &ran);
            steps.view
        });
    }
}

#[test]
fn conformance_config_changed_after_create_has_no_effect() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let mut bundle = Bundle::script("echo first");
        let id = instance.id("changed");
        instance.create(&bundle, &id);
        bundle.args(&["sh", "-c", "echo second"]).write();
        instance.ok(&["start", &id]);
        instance.wait_status(&id, "stopped");
        steps.see("output", instance.stdout(&id));
        steps.view
    });
}

#[test]
fn conformance_delete_force_ends_everything() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let id = instance.id("force");
        let bundle = Bundle::script("trap '' TERM; sleep 1000 & echo up; wait");
        instance.start(&bundle, &id);
        instance.wait_stdout(&id, "up\n");
        let pid = instance.pid(&id);
        steps.run("delete", &["delete", "--force", &id]);
        steps.see("process is gone", !std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists());
        steps.see("state is gone", instance.status(&id).is_none());
        steps.see("cgroups", instance.cgroups().len());
        steps.see("directory", instance.root().join(&id).exists());
        steps.view
    });
}
