//! `onggi-oci` on its own: runc's command line, by hand and below other engines.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use onggi_tests::{
    Onggi, Ran, eventually, isolated,
    machine::{sh, without_unified_cgroups},
    onggi::collect,
};
use serde_json::{Value, json};

struct Runtime {
    onggi: Onggi,
    bundle: PathBuf,
}

impl Runtime {
    /// A bundle with busybox, whose configuration is what `onggi-oci spec` writes.
    fn new(args: &[&str]) -> Runtime {
        isolated();
        let onggi = Onggi::new();
        let bundle = onggi.dir().join("bundle");
        let bin = bundle.join("rootfs/bin");
        fs::create_dir_all(&bin).expect("make the bundle");
        fs::copy("/bin/busybox", bin.join("busybox")).expect("copy busybox");
        sh(&format!("cd {} && for a in sh sleep cat echo true; do ln -s busybox $a; done", bin.display()));
        let runtime = Runtime { onggi, bundle };
        let ran = runtime.run(&["spec"]);
        assert_eq!(ran.code, Some(0), "{ran}");
        runtime.change(|config| {
            config["process"]["args"] = json!(args);
            config["process"]["terminal"] = json!(false);
        });
        runtime
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        let file = self.bundle.join("config.json");
        let text = fs::read(&file).expect("spec has written config.json");
        let mut config: Value = serde_json::from_slice(&text).expect("config.json is JSON");
        change(&mut config);
        fs::write(&file, config.to_string()).expect("write config.json");
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(self.onggi.runtime());
        command.arg("--root").arg(self.onggi.dir().join("oci")).args(args).current_dir(&self.bundle);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        collect(command.spawn().expect("start onggi-oci"), format!("onggi-oci {}", args.join(" ")))
    }

    /// As [`Runtime::run`], for what keeps its output open: everything goes to a file.
    fn detached(&self, args: &[&str]) -> String {
        let log = self.onggi.dir().join("output");
        let file = fs::File::create(&log).expect("make the output file");
        let mut command = Command::new(self.onggi.runtime());
        command.arg("--root").arg(self.onggi.dir().join("oci")).args(args).current_dir(&self.bundle);
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second descriptor")).stderr(file);
        let status = command.status().expect("start onggi-oci");
        let text = fs::read_to_string(&log).expect("read the output file");
        assert!(status.success(), "onggi-oci {}: {status}: {text}", args.join(" "));
        text
    }

    fn status(&self, id: &str) -> String {
        let ran = self.run(&["state", id]);
        assert_eq!(ran.code, Some(0), "{ran}");
        let state: Value = serde_json::from_str(&ran.stdout).expect("state prints JSON");
        assert_eq!(state["id"], id);
        state["status"].as_str().expect("a status").to_owned()
    }
}

#[test]
fn e2e_runtime_lifecycle_is_that_of_the_specification() {
    let runtime = Runtime::new(&["sleep", "100"]);
    let pid_file = runtime.onggi.dir().join("pid");
    runtime.detached(&["create", "--bundle", ".", "--pid-file", &pid_file.to_string_lossy(), "box"]);
    assert_eq!(runtime.status("box"), "created");
    let pid = fs::read_to_string(&pid_file).expect("the pid file is written");
    assert_ne!(fs::read_to_string(format!("/proc/{pid}/comm")).expect("it lives"), "sleep\n");
    assert_eq!(runtime.run(&["start", "box"]).code, Some(0));
    assert_eq!(runtime.status("box"), "running");
    eventually("the program is executed", || {
        (fs::read_to_string(format!("/proc/{pid}/comm")).ok()? == "sleep\n").then_some(())
    });
    assert_ne!(runtime.run(&["start", "box"]).code, Some(0), "it is started already");
    assert_ne!(runtime.run(&["create", "--bundle", ".", "box"]).code, Some(0), "the id is taken");
    assert_eq!(runtime.run(&["exec", "box", "echo", "inside"]).stdout, "inside\n");
    assert_eq!(runtime.run(&["pause", "box"]).code, Some(0));
    assert_eq!(runtime.status("box"), "paused");
    assert_eq!(runtime.run(&["resume", "box"]).code, Some(0));
    assert!(runtime.run(&["list"]).stdout.contains("box"));
    assert!(runtime.run(&["ps", "box"]).stdout.contains("sleep"));
    assert_ne!(runtime.run(&["delete", "box"]).code, Some(0), "a running container is not deleted");
    assert_eq!(runtime.run(&["kill", "box", "KILL"]).code, Some(0));
    eventually("it stops", || (runtime.status("box") == "stopped").then_some(()));
    assert_eq!(runtime.run(&["delete", "box"]).code, Some(0));
    assert_ne!(runtime.run(&["state", "box"]).code, Some(0));
    assert_eq!(runtime.run(&["delete", "--force", "box"]).code, Some(0), "already gone is success with --force");
    runtime.onggi.assert_nothing_left();
}

#[test]
fn e2e_runtime_run_returns_the_exit_code_and_deletes() {
    let runtime = Runtime::new(&["sh", "-c", "echo $A; exit 6"]);
    runtime.change(|config| config["process"]["env"] = json!(["PATH=/bin", "A=from the config"]));
    let ran = runtime.run(&["run", "box"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(6), "from the config\n"), "{ran}");
    assert_ne!(runtime.run(&["state", "box"]).code, Some(0));
    runtime.change(|config| config["process"]["args"] = json!(["/no/such/program"]));
    let ran = runtime.run(&["run", "box"]);
    assert!(!matches!(ran.code, Some(0)) && ran.stderr.contains("/no/such/program"), "{ran}");
    runtime.onggi.assert_nothing_left();
}

#[test]
fn e2e_runtime_features_are_listed() {
    let runtime = Runtime::new(&["true"]);
    let ran = runtime.run(&["features"]);
    let features: Value = serde_json::from_str(&ran.stdout).expect("features prints JSON");
    let namespaces = features["linux"]["namespaces"].as_array().expect("a list of namespaces");
    assert!(namespaces.len() >= 7, "{features}");
    assert!(features["ociVersionMax"].is_string(), "{features}");
}

#[test]
fn e2e_runtime_hooks_run_in_order_and_get_the_state() {
    let runtime = Runtime::new(&["true"]);
    let log = runtime.onggi.dir().join("hooks");
    runtime.change(|config| {
        for name in ["createRuntime", "poststart", "poststop"] {
            let script = format!("echo {name} $(cat | grep -o '\"id\": *\"[a-z]*\"') >> {}", log.display());
            config["hooks"][name] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        }
    });
    let ran = runtime.run(&["run", "box"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let text = fs::read_to_string(&log).expect("hooks have run").replace(' ', "");
    assert_eq!(text, "createRuntime\"id\":\"box\"\npoststart\"id\":\"box\"\npoststop\"id\":\"box\"\n");
    runtime.onggi.assert_nothing_left();
}

#[test]
fn e2e_podman_runs_exec_and_stops_containers_with_our_runtime() {
    let runtime = Runtime::new(&["true"]);
    let dir = runtime.onggi.dir();
    let podman = format!(
        "podman --root {0}/p/root --runroot {0}/p/run --tmpdir {0}/p/tmp --cgroup-manager cgroupfs --events-backend none --runtime {1}",
        dir.display(),
        runtime.onggi.runtime().display()
    );
    // Podman, as crun, does not know hybrid control groups.
    without_unified_cgroups();
    let text = sh(&format!(
        "mkdir -p {0}/p/tmp
         tar -C {1}/rootfs -c . | {podman} import -q - box >/dev/null
         {podman} run --rm --network none box echo from-podman
         {podman} run --rm --network none box sh -c 'exit 5' || echo code $?
         {podman} run -d --network none --name keep box sleep 100 >/dev/null
         {podman} exec keep cat /proc/1/comm
         {podman} stop -t 0 keep >/dev/null
         {podman} rm keep >/dev/null",
        dir.display(),
        runtime.bundle.display()
    ));
    assert_eq!(text, "from-podman\ncode 5\nsleep\n");
    sh(&format!("umount -l {}/p/root/overlay 2>/dev/null || true", dir.display()));
}
