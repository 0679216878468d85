//! The runtime's verbs with real containers. All need root on this machine's kernel, hence their names.

mod abuse;
mod cgroups;
mod commands;
mod crun;
mod harness;
mod hooks;
mod hostile;
mod life;
mod mounts;
mod namespaces;
mod notify;
mod options;
mod process;
mod suites;
mod values;
mod view;
mod vm_cgroup;
mod vm_labels;
mod vm_suites;
mod vm_systemd;

use std::{fs, io::Read};

use harness::{Bundle, cgroups_of, field};
use serde_json::json;

#[test]
fn root_run_returns_output_and_exit_code_and_leaves_nothing() {
    let b = Bundle::new("echo hello; echo oops >&2; exit 7");
    let done = b.run();
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (7, "hello\n", "oops\n"));
    assert_eq!(b.status(), "absent");
    assert!(cgroups_of(&b.id).is_empty());
}

#[test]
fn root_death_by_signal_is_128_plus_its_number() {
    assert_eq!(Bundle::new("kill -9 $$").run_with(&["--init"]).code, 137);
    // PID 1 cannot kill itself with a signal that it does not handle.
    assert_eq!(Bundle::new("kill -9 $$; exit 3").run().code, 3);
}

#[test]
fn root_life_of_a_container_from_create_to_delete() {
    let b = Bundle::new("echo started; trap 'exit 9' TERM; while :; do sleep 0.05; done");
    assert_eq!(b.create().code, 0);
    assert_eq!(b.status(), "created");
    assert_eq!(b.output(), "", "the program must not run before start");
    assert_eq!(b.verb("start", &[]).code, 0);
    assert_eq!(b.status(), "running");
    b.until("output", |b| b.output() == "started\n");
    let second = b.verb("start", &[]);
    assert_ne!(second.code, 0);
    assert!(second.err.contains("cannot start an already running container"), "{}", second.err);
    assert_ne!(b.verb("delete", &[]).code, 0, "a running container is not deleted without force");
    assert_eq!(b.verb("kill", &["TERM"]).code, 0);
    b.until("stopped", |b| b.status() == "stopped");
    assert_ne!(b.verb("kill", &["TERM"]).code, 0);
    assert_eq!(b.verb("delete", &[]).code, 0);
    assert_eq!(b.status(), "absent");
}

#[test]
fn root_an_id_can_be_used_once_at_a_time() {
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let again = b.run_detached(&[]);
    assert_eq!(again.code, 1);
    assert!(again.out.contains("container with given ID already exists"), "{}", again.out);
    assert_eq!(b.status(), "running", "the failed second run must not touch the first");
}

#[test]
fn root_a_created_container_can_be_deleted() {
    let b = Bundle::new("true");
    assert_eq!(b.create().code, 0);
    assert_eq!(b.verb("delete", &[]).code, 0);
    assert_eq!(b.status(), "absent");
}

#[test]
fn root_pause_freezes_and_resume_thaws() {
    let mut b = Bundle::new("while :; do echo x; sleep 0.02; done");
    b.config["linux"]["resources"] = json!({ "pids": { "limit": 64 } });
    assert_eq!(b.run_detached(&[]).code, 0);
    assert_eq!(b.verb("pause", &[]).code, 0);
    assert_eq!(b.status(), "paused");
    let before = b.output().len();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(b.output().len(), before);
    assert!(b.exec(&[], &["true"]).err.contains("cannot exec in a paused container"));
    assert_eq!(b.verb("resume", &[]).code, 0);
    b.until("more output", |b| b.output().len() > before);
}

#[test]
fn root_exec_enters_all_namespaces_with_the_containers_rights() {
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let pid = b.pid();
    let done = b.exec(
        &["-e", "A=b", "--cwd", "/tmp"],
        &["sh", "-c", "for n in pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done; echo $A; pwd; exit 4"],
    );
    assert_eq!(done.code, 4, "{}", done.err);
    let lines: Vec<&str> = done.out.lines().collect();
    for (i, kind) in ["pid", "mnt", "net", "ipc", "uts", "cgroup"].iter().enumerate() {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(lines[i], link.to_string_lossy(), "{kind}");
    }
    assert_eq!(&lines[6..], ["b", "/tmp"]);
    let status = b.exec(&[], &["cat", "/proc/self/status"]).out;
    assert_eq!(field(&status, "CapEff"), "00000000800405fb");
    assert_eq!(field(&status, "CapInh"), "0000000000000000");
}

#[test]
fn root_exec_by_number_is_that_user_without_capabilities() {
    let b = Bundle::new("sleep 60");
    // CVE-2016-3697: a name that looks like a number must not matter.
    fs::write(b.root().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/root:/bin/sh\n").unwrap();
    assert_eq!(b.run_detached(&[]).code, 0);
    let status = b.exec(&["-u", "1000:100", "-g", "7"], &["cat", "/proc/self/status"]).out;
    assert_eq!(field(&status, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field(&status, "Gid"), "100\t100\t100\t100");
    assert_eq!(field(&status, "Groups"), "7");
    assert_eq!(field(&status, "CapEff"), "0000000000000000");
    let status = b.exec(&["-u", "1000", "--no-new-privs"], &["cat", "/proc/self/status"]).out;
    assert_eq!((field(&status, "Gid"), field(&status, "NoNewPrivs")), ("0\t0\t0\t0", "1"));
    for bad in [":", "1:", "root", "4294967296"] {
        assert_eq!(b.exec(&["-u", bad], &["id"]).code, 255, "{bad:?}");
    }
}

#[test]
fn root_a_program_that_cannot_be_executed_says_why_and_has_runcs_code_or_for_the_engine_dockers() {
    let mut arm = fs::read("/bin/busybox").unwrap()[..4096].to_vec();
    arm[18] = 183;
    let files: [(&str, &[u8], u32); 4] = [
        ("no-x", b"#!/bin/sh\n", 0o644),
        ("no-interpreter", b"#!/usr/bin/perl -w\n", 0o755),
        ("no-magic", b"echo hi\n", 0o755),
        ("arm", &arm, 0o755),
    ];
    let cases: [(&[&str], i32, &str); 8] = [
        (&["nope"], 127, "exec: \"nope\": executable file not found in $PATH"),
        (&["/no/pe"], 127, "exec: \"/no/pe\": stat /no/pe: no such file or directory"),
        (&["no-x"], 126, "exec: \"/bin/no-x\": permission denied"),
        (&["/etc"], 126, "is a directory"),
        (&["/bin/no-interpreter"], 127, "interpreter \"/usr/bin/perl\""),
        (&["no-magic"], 126, "neither a program nor a script"),
        (&["arm"], 126, "is a program for arm64"),
        (&[""], 127, "exec: \"\": executable file not found in $PATH"),
    ];
    for (args, code, text) in cases {
        let mut b = Bundle::new("true");
        for (name, content, mode) in files {
            let at = b.root().join("bin").join(name);
            fs::write(&at, content).unwrap();
            fs::set_permissions(&at, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        b.args(args);
        let done = b.run();
        assert_eq!(done.code, 1, "{args:?}: {}", done.err);
        assert!(done.err.contains(text) && done.err.lines().count() == 1, "{args:?}: {}", done.err);
        let quiet = b.oci(&["--quiet", "run", "-b", b.dir.to_str().unwrap(), &b.id]).output().unwrap();
        assert_eq!((quiet.status.code(), quiet.stderr.as_slice()), (Some(code), &b""[..]), "{args:?}");
        assert_eq!(b.status(), "absent", "{args:?}");
    }
}

#[test]
fn root_a_dynamic_program_without_its_loader_is_told_apart_from_a_missing_one() {
    let mut b = Bundle::new("true");
    fs::copy("/bin/true", b.root().join("bin/dynamic")).unwrap();
    b.args(&["dynamic"]);
    let done = b.run();
    assert_eq!(done.code, 1);
    assert!(done.err.contains("interpreter \"/lib64/ld-linux-x86-64.so.2\""), "{}", done.err);
}

#[test]
fn root_a_failed_create_reports_step_and_errno_and_leaves_nothing() {
    let mut b = Bundle::new("true");
    b.add_mount(json!({ "destination": "/data", "type": "bind", "source": "/not/there", "options": ["bind"] }));
    let done = b.create();
    assert_eq!(done.code, 1);
    assert!(done.err.contains("bind /not/there on /data"), "{}", done.err);
    assert!(done.err.contains("ENOENT"), "{}", done.err);
    assert_eq!(b.status(), "absent");
    assert!(cgroups_of(&b.id).is_empty());
}

#[test]
fn root_errors_reach_the_engines_log_as_json() {
    let mut b = Bundle::new("true");
    b.args(&["nope"]);
    b.write_config();
    let log = b.dir.join("log.json");
    let run = |args: &[&str]| {
        let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_onggi-oci"));
        c.arg("--root").arg(b.dir.join("state")).arg("--log").arg(&log).args(args).output().unwrap()
    };
    run(&["--log-format", "json", "run", "-b", b.dir.to_str().unwrap(), &b.id]);
    let line: serde_json::Value = serde_json::from_str(fs::read_to_string(&log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("\"nope\": executable file not found in $PATH"));
}

#[test]
fn root_init_reaps_orphans_and_forwards_signals() {
    let b = Bundle::new("trap 'echo got; exit 5' TERM; (sleep 0.1 &); echo ready; while :; do sleep 0.05; done");
    assert_eq!(b.run_detached(&["--init"]).code, 0);
    b.until("ready", |b| b.output().contains("ready"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    let ps = b.exec(&[], &["ps", "-o", "ppid,stat,comm"]).out;
    assert!(ps.contains("onggi-init"), "{ps}");
    // The shell's own children are the shell's to reap, which it may be about to do.
    let orphans = ps.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).filter(|l| l.first() == Some(&"1"));
    assert!(orphans.clone().count() > 0 && !orphans.into_iter().any(|l| l[1].starts_with('Z')), "{ps}");
    let status = b.exec(&[], &["cat", "/proc/1/status"]).out;
    assert_eq!(field(&status, "CapEff"), "00000000800405fb", "PID 1 keeps no more than the program has");
    assert_eq!(b.verb("kill", &["TERM"]).code, 0);
    b.until("stopped", |b| b.status() == "stopped");
    assert!(b.output().contains("got"));
}

#[test]
fn root_hooks_run_in_order_with_the_state_on_stdin_and_only_their_environment() {
    let mut b = Bundle::new("true");
    let log = b.dir.join("hooks");
    let hook = |name: &str| {
        let text = format!("(echo {name}; env; cat; echo) >> {}", log.display());
        json!({ "path": "/bin/sh", "args": ["sh", "-c", text], "env": ["HOOK=1"], "timeout": 10 })
    };
    b.config["hooks"] = json!({
        "prestart": [hook("prestart")],
        "createRuntime": [hook("createRuntime")],
        "createContainer": [hook("createContainer")],
        "poststart": [hook("poststart")],
        "poststop": [hook("poststop")],
        "startContainer": [{ "path": "/bin/touch", "args": ["touch", "/started-inside"] }]
    });
    let created = b.create();
    assert_eq!(created.code, 0, "{}", created.err);
    assert_eq!(b.verb("start", &[]).code, 0);
    b.until("stopped", |b| b.status() == "stopped");
    assert_eq!(b.verb("delete", &[]).code, 0);
    let text = fs::read_to_string(&log).unwrap();
    let order: Vec<&str> =
        text.lines().filter(|l| l.starts_with("pre") || l.starts_with("create") || l.starts_with("post")).collect();
    assert_eq!(order, ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    assert!(!text.contains("\"pid\":0"), "every hook knows the pid: {text}");
    assert!(text.contains("HOOK=1") && !text.contains("HOME="), "{text}");
    assert!(text.contains(&format!("\"id\":\"{}\"", b.id)) && text.contains("\"status\":\"creating\""));
    assert!(b.root().join("started-inside").exists());
}

#[test]
fn root_a_failing_or_hanging_hook_ends_the_create() {
    for (script, timeout, text) in
        [("exit 3", 5, "hook #0: /bin/sh: exit status 3"), ("sleep 30", 1, "still running after 1 s")]
    {
        let mut b = Bundle::new("true");
        let args = json!(["sh", "-c", script]);
        b.config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": args, "timeout": timeout }] });
        let done = b.create();
        assert_eq!(done.code, 1);
        assert!(done.err.contains(text), "{}", done.err);
        assert_eq!(b.status(), "absent");
    }
}

#[test]
fn root_list_ps_and_features_are_machine_readable() {
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let list: serde_json::Value =
        serde_json::from_slice(&b.oci(&["list", "-f", "json"]).output().unwrap().stdout).unwrap();
    assert_eq!((list[0]["id"].as_str(), list[0]["status"].as_str()), (Some(b.id.as_str()), Some("running")));
    let pids: Vec<i32> = serde_json::from_slice(&b.oci(&["ps", "-f", "json", &b.id]).output().unwrap().stdout).unwrap();
    assert_eq!(pids, [b.pid()]);
    let features: serde_json::Value = serde_json::from_slice(&b.oci(&["features"]).output().unwrap().stdout).unwrap();
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
}

/// containerd reads the output of `create` to its end; it would wait for the program otherwise.
#[test]
fn root_a_created_container_with_a_terminal_lets_go_of_its_callers_streams() {
    let mut b = Bundle::new("tty");
    b.config["process"]["terminal"] = json!(true);
    b.write_config();
    let socket = b.dir.join("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let args = ["create", "-b", b.dir.to_str().unwrap(), "--console-socket", socket.to_str().unwrap(), &b.id];
    let done = b.oci(&args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let (console, _) = listener.accept().unwrap();
    let mut fds = Vec::new();
    let mut name = [0u8; 64];
    onggi_sys::unix::recv_with_fds(std::os::fd::AsFd::as_fd(&console), &mut name, &mut fds).unwrap();
    assert_eq!(b.verb("start", &[]).code, 0);
    // A terminal hands on what is there: a line may come in two pieces.
    let (mut text, mut piece) = (String::new(), [0u8; 64]);
    while !text.ends_with('\n') {
        let n = rustix::io::read(&fds[0], &mut piece).unwrap();
        text += &String::from_utf8_lossy(&piece[..n]);
    }
    assert_eq!(text, "/dev/pts/0\r\n");
}

#[test]
fn root_output_of_exec_streams_while_it_runs() {
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let mut child = b.spawn_exec(&["sh", "-c", "echo first; sleep 60"]);
    let mut buf = [0u8; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"first\n");
    child.kill().unwrap();
    child.wait().unwrap();
}
