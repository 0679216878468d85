//! Callers that are careless, starved or killed: an error that says what and why and what to do, and nothing left.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;

use crate::harness::{Bundle, Done, cgroups_of};

/// `run` as a shell calls it after a builtin such as `ulimit`.
fn after(b: &Bundle, before: &str) -> Done {
    b.write_config();
    let run = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{before}; exec \"$@\""), "sh"]).arg(run.get_program()).args(run.get_args());
    shell.stdin(Stdio::null()).output().unwrap().into()
}

#[track_caller]
fn nothing_left(b: &Bundle) {
    assert!(!b.dir.join("state").join(&b.id).exists(), "the state is left");
    assert_eq!(cgroups_of(&b.id), Vec::<std::path::PathBuf>::new());
}

#[test]
fn root_documents_that_are_wrong_are_refused_with_a_reason_and_leave_nothing() {
    let mut b = Bundle::new("echo ran");
    let right = b.config.clone();
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for text in ["", "{", "null", "[]", "\"x\"", "\0", "{\"ociVersion\":\"\u{1}\"}", "{}", &deep] {
        fs::write(b.dir.join("config.json"), text).unwrap();
        let done: Done = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]).output().unwrap().into();
        assert!(done.code == 1 && done.err.contains("hint="), "{text:.20}: {}", done.err);
        nothing_left(&b);
    }
    for (pointer, wrong) in [
        ("/process", json!(null)),
        ("/process/args", json!("sh")),
        ("/process/args", json!([])),
        ("/process/args", json!(["a\u{0}b"])),
        ("/process/cwd", json!("relative")),
        ("/process/user/uid", json!("0")),
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!(4_294_967_296_u64)),
        ("/process/user/gid", json!(4_294_967_295_u64)),
        ("/root/path", json!("")),
        ("/root/path", json!("/")),
        ("/root/path", json!("/etc/passwd")),
        ("/root/path", json!("nowhere")),
        ("/mounts", json!({})),
        ("/ociVersion", json!("2.0.0")),
        ("/linux/maskedPaths", json!([1])),
    ] {
        b.config = right.clone();
        *b.config.pointer_mut(pointer).unwrap() = wrong.clone();
        let done = b.run();
        assert!(done.code == 1 && done.out.is_empty() && !done.err.is_empty(), "{pointer} {wrong}: {done:?}");
        nothing_left(&b);
    }
}

/// JSON that other readers would take for something, and that the specification forbids or does not mean.
#[test]
fn root_documents_that_mean_two_things_or_nothing_are_refused() {
    let b = Bundle::new("echo ran");
    let refused = |bytes: &[u8], why: &str| {
        fs::write(b.dir.join("config.json"), bytes).unwrap();
        let done: Done = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]).output().unwrap().into();
        assert!(done.code == 1 && done.err.contains(why) && done.out.is_empty(), "{why}: {done:?}");
        nothing_left(&b);
    };
    let text = b.config.to_string();
    let twice =
        |name: &str, value: &str| text.replacen(&format!("\"{name}\":"), &format!("\"{name}\":{value},\"{name}\":"), 1);
    refused(twice("hostname", "\"other\"").as_bytes(), "duplicate field `hostname`");
    refused(twice("cwd", "\"/\"").as_bytes(), "duplicate field `cwd`");
    let maps = text.replacen('{', "{\"annotations\":{\"a\":\"1\",\"a\":\"2\"},", 1);
    refused(maps.as_bytes(), "duplicate field `a`");
    let (little, big): (Vec<u8>, Vec<u8>) = (
        text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    );
    for (bytes, why) in [
        ([b"\xef\xbb\xbf", text.as_bytes()].concat(), "byte order mark"),
        ([b"\xff\xfe", &little[..]].concat(), "UTF-16"),
        (little, "UTF-16"),
        (big, "UTF-16"),
        (text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(), "UTF-32"),
        ([text.as_bytes(), b"\xff"].concat(), "line 1"),
        ([text.as_bytes(), text.as_bytes()].concat(), "trailing characters"),
    ] {
        refused(&bytes, why);
    }
}

#[test]
fn root_arrays_are_no_structures_and_null_is_absent() {
    let mut b = Bundle::new("echo ran");
    let right = b.config.clone();
    for pointer in [
        "/process",
        "/root",
        "/linux",
        "/hooks",
        "/process/user",
        "/process/capabilities",
        "/process/scheduler",
        "/process/ioPriority",
        "/process/execCPUAffinity",
        "/process/consoleSize",
        "/linux/resources",
        "/linux/seccomp",
        "/linux/intelRdt",
        "/linux/personality",
        "/linux/memoryPolicy",
        "/annotations",
        "/linux/sysctl",
        "/linux/timeOffsets",
        "/linux/netDevices",
    ] {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        for wrong in [json!([]), json!([1])] {
            b.config = right.clone();
            b.config.pointer_mut(parent).unwrap()[member] = wrong.clone();
            let done = b.run();
            assert!(done.code == 1 && done.err.contains("invalid type"), "{pointer} {wrong}: {done:?}");
            nothing_left(&b);
        }
        if !matches!(pointer, "/process" | "/root" | "/linux" | "/process/capabilities") {
            b.config = right.clone();
            b.config.pointer_mut(parent).unwrap()[member] = json!(null);
            assert_eq!(b.run().out, "ran\n", "{pointer}");
        }
    }
    b.config = right;
    for resource in ["memory", "cpu", "pids", "blockIO", "network", "rdma", "unified"] {
        b.config["linux"]["resources"] = json!({ resource: [1] });
        assert!(b.run().err.contains("invalid type: sequence"), "{resource}");
    }
}

/// A configuration that is no file is told at once: nothing waits for a writer or reads without end.
#[test]
fn root_a_configuration_that_is_no_file_is_refused_at_once() {
    let b = Bundle::new("echo ran");
    let at = b.dir.join("config.json");
    let refused = |why: &str| {
        let mut run = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
        let done: Done = run.output().unwrap().into();
        assert!(done.code == 1 && done.err.contains(why), "{done:?}");
        nothing_left(&b);
    };
    assert!(Command::new("mkfifo").arg(&at).status().unwrap().success());
    refused("it is not an ordinary file");
    fs::remove_file(&at).unwrap();
    fs::create_dir(&at).unwrap();
    refused("it is not an ordinary file");
    fs::remove_dir(&at).unwrap();
    for device in ["/dev/zero", "/dev/null", "/dev/full"] {
        std::os::unix::fs::symlink(device, &at).unwrap();
        refused("it is not an ordinary file");
        fs::remove_file(&at).unwrap();
    }
    std::os::unix::fs::symlink("config.json", &at).unwrap();
    refused("too many levels of symbolic links");
    fs::remove_file(&at).unwrap();
    fs::write(b.dir.join("elsewhere"), b.config.to_string()).unwrap();
    std::os::unix::fs::symlink("elsewhere", &at).unwrap();
    let done: Done = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]).output().unwrap().into();
    assert_eq!(done.out, "ran\n", "{}", done.err);
}

#[test]
fn root_sections_of_other_platforms_and_unknown_members_are_ignored() {
    let mut b = Bundle::new("echo ran");
    for section in ["vm", "zos", "windows", "solaris", "freebsd", "x-unknown"] {
        b.config[section] = json!({ "path": "relative", "namespaces": 7, "deep": [[[{}]]] });
    }
    for pointer in ["/process", "/process/user", "/root", "/linux", "/mounts/0", "/linux/namespaces/0"] {
        b.config.pointer_mut(pointer).unwrap()["unknown"] = json!([{ "a": null }, 1.5, "x"]);
    }
    b.config["annotations"] = json!({ "": "", "org.example.unknown": "\u{0}\n", "run.oci.handler": "wasm" });
    let text = b.config.to_string();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    fs::write(b.dir.join("config.json"), text.replacen('{', &format!("{{\"y\":{deep},"), 1)).unwrap();
    let done: Done = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]).output().unwrap().into();
    assert_eq!((done.code, done.out.as_str()), (0, "ran\n"), "{}", done.err);
}

#[test]
fn root_a_small_limit_of_open_files_is_the_programs_and_not_the_runtimes() {
    for user_namespace in [false, true] {
        let mut b = Bundle::new("sleep 1000");
        if user_namespace {
            crate::mounts::in_user_namespace(&mut b);
        }
        b.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 16, "hard": 18 }]);
        let done = b.run_detached(&[]);
        assert_eq!(done.code, 0, "user namespace {user_namespace}: {}", done.err);
        let limits = b.exec(&[], &["sh", "-c", "ulimit -n; ulimit -Hn; grep files /proc/1/limits | tr -s ' '"]);
        assert_eq!(limits.out, "16\n18\nMax open files 16 18 files \n", "{}", limits.err);
    }
}

/// The kernel would take each of them to its first NUL.
#[test]
fn root_text_with_a_nul_is_never_cut_short() {
    let mut b = Bundle::new("echo ran");
    let right = b.config.clone();
    let nul = "a\u{0}b";
    for (pointer, wrong) in [
        ("/hostname", json!(nul)),
        ("/domainname", json!(nul)),
        ("/root/path", json!("rootfs\u{0}")),
        ("/process/cwd", json!("/\u{0}")),
        ("/process/env", json!([format!("A={nul}")])),
        ("/mounts/0/destination", json!("/proc\u{0}")),
        ("/mounts/0/source", json!("proc\u{0}")),
        ("/mounts/1/options", json!(["size=1m\u{0}"])),
        ("/linux/maskedPaths", json!(["/proc/keys\u{0}"])),
        ("/linux/readonlyPaths", json!(["/proc/sys\u{0}"])),
        ("/linux/cgroupsPath", json!(format!("/{nul}"))),
        ("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1\u{0}" })),
        ("/linux/namespaces/0", json!({ "type": "pid", "path": "/proc/1/ns/pid\u{0}" })),
        ("/linux/devices", json!([{ "path": "/dev/a\u{0}", "type": "c", "major": 1, "minor": 3 }])),
        ("/hooks", json!({ "prestart": [{ "path": "/bin/true\u{0}" }] })),
        ("/hooks", json!({ "prestart": [{ "path": "/bin/true", "args": [nul] }] })),
        ("/hooks", json!({ "prestart": [{ "path": "/bin/true", "env": [format!("A={nul}")] }] })),
        ("/linux/netDevices", json!({ nul: {} })),
    ] {
        b.config = right.clone();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        match (b.config.pointer_mut(parent).unwrap(), member.parse::<usize>()) {
            (serde_json::Value::Array(list), Ok(index)) => list[index] = wrong.clone(),
            (object, _) => object[member] = wrong.clone(),
        }
        let done = b.run();
        assert!(done.code == 1 && done.out.is_empty() && !done.err.is_empty(), "{pointer} {wrong}: {done:?}");
        nothing_left(&b);
    }
}

#[test]
fn root_a_pid_file_that_cannot_be_written_is_known_before_the_program_runs() {
    let b = Bundle::new("echo ran");
    let directory = b.dir.to_str().unwrap().to_owned();
    for at in ["/not/there/pid", "/proc/pid", &directory] {
        let done = b.run_with(&["--pid-file", at]);
        assert!(done.code == 1 && done.out.is_empty(), "{done:?}");
        assert!(done.err.contains("write pid file") && done.err.contains("hint="), "{}", done.err);
        nothing_left(&b);
    }
    let at = b.dir.join("pid");
    assert_eq!(b.run_with(&["--pid-file", at.to_str().unwrap()]).out, "ran\n");
    assert!(fs::read_to_string(&at).unwrap().parse::<i32>().is_ok());
    // What is no ordinary file stays what it is.
    let device = b.dir.join("device");
    assert!(Command::new("mknod").arg(&device).args(["c", "1", "3"]).status().unwrap().success());
    assert_eq!(b.run_with(&["--pid-file", device.to_str().unwrap()]).out, "ran\n");
    assert!(fs::symlink_metadata(&device).unwrap().file_type().is_char_device());
}

#[test]
fn root_too_few_open_files_are_an_error_that_leaves_nothing() {
    let b = Bundle::new("echo ran");
    let mut refused = 0;
    for limit in (4..20).chain([32]) {
        let done = after(&b, &format!("ulimit -n {limit}"));
        if done.code != 0 {
            assert!(done.err.contains("too many open files"), "{limit}: {done:?}");
            refused += 1;
        }
        nothing_left(&b);
    }
    assert!(refused > 0, "four descriptors are not enough");
    assert_eq!(after(&b, "ulimit -n 64").out, "ran\n");
}

#[test]
fn root_a_callers_strange_surroundings_do_not_reach_the_container() {
    let b = Bundle::new("umask; pwd; ls /proc/self/fd | wc -l");
    let usual = after(&b, ":").out;
    let gone = "mkdir -p gone && cd gone && rmdir ../gone";
    for before in ["umask 0777", "unset PATH HOME", "TMPDIR=/not/there; export TMPDIR", "ulimit -c 0 -q 0", gone] {
        let done = after(&b, &format!("cd {}; {before}", b.dir.display()));
        assert_eq!((done.code, &done.out), (0, &usual), "{before}: {}", done.err);
        nothing_left(&b);
    }
    // A mask that forbids everything would keep the owner from the state of his own container.
    let mut b = Bundle::new("sleep 60");
    b.args(&["sleep", "60"]);
    b.write_config();
    let create = b.oci(&["run", "-d", "-b", b.dir.to_str().unwrap(), &b.id]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 0777; exec \"$@\"", "sh"]).arg(create.get_program()).args(create.get_args());
    assert!(shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let mode = |at: &str| fs::metadata(b.dir.join("state").join(at)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&b.id), mode(&format!("{}/state.json", b.id))), (0o700, 0o600));
}

#[test]
fn root_closed_streams_are_dev_null_for_the_program() {
    let b = Bundle::new("exec 3>&1; readlink /proc/$$/fd/0 >&2; ls /proc/$$/fd | wc -l >&2");
    for closed in ["exec <&-", "exec <&- >&-"] {
        let done = after(&b, closed);
        assert_eq!(done.code, 0, "{closed}: {done:?}");
        assert!(done.err.starts_with("/dev/null\n"), "{closed}: {done:?}");
    }
    assert_eq!(after(&b, "exec <&- >&- 2>&-").code, 0);
    nothing_left(&b);
}

#[test]
fn root_a_hook_that_is_out_of_time_takes_its_children_along() {
    let mut b = Bundle::new("true");
    let pids = b.dir.join("pids");
    let script = format!("sleep 99 & echo $! >> {0}; sleep 99 & echo $! >> {0}; wait", pids.display());
    b.config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1 }] });
    let done = b.run();
    assert!(done.code == 1 && done.err.contains("still running after 1 s, killed"), "{}", done.err);
    let pids = fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        b.until("the hook's children are gone", |_| stat().is_empty() || stat().contains(") Z "));
    }
    nothing_left(&b);
}

#[test]
fn root_a_deletion_by_force_succeeds_whatever_else_is_going_on() {
    let mut b = Bundle::new("sleep 60");
    b.args(&["sleep", "60"]);
    for _ in 0..30 {
        assert_eq!(b.create().code, 0);
        let mut start = b.oci(&["start", &b.id]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deleted = b.verb("delete", &["--force"]);
        start.wait().unwrap();
        assert_eq!(deleted.code, 0, "{}", deleted.err);
        let again = b.verb("delete", &["--force"]);
        assert_eq!(again.code, 0, "{}", again.err);
        nothing_left(&b);
    }
}

/// The program may end between any two looks of the deletion at it.
#[test]
fn root_a_deletion_by_force_succeeds_while_the_program_ends() {
    let mut b = Bundle::new("true");
    b.args(&["true"]);
    for turn in 0..40 {
        assert_eq!(b.create().code, 0);
        assert_eq!(b.verb("start", &[]).code, 0);
        let deleted = b.verb("delete", &["--force"]);
        assert_eq!((deleted.code, deleted.err.as_str()), (0, ""), "turn {turn}");
    }
    nothing_left(&b);
}

#[test]
fn root_of_many_creations_of_one_id_one_succeeds() {
    let mut b = Bundle::new("sleep 60");
    b.args(&["sleep", "60"]);
    b.write_config();
    for _ in 0..5 {
        let args = ["create", "-b", b.dir.to_str().unwrap(), &b.id];
        let quiet = |mut c: Command| c.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let all: Vec<_> = (0..6).map(|_| quiet(b.oci(&args))).collect();
        let good = all.into_iter().filter_map(|mut c| c.wait().unwrap().success().then_some(())).count();
        assert_eq!((good, b.status().as_str()), (1, "created"));
        assert_eq!(b.verb("delete", &["--force"]).code, 0);
        nothing_left(&b);
    }
}

#[test]
fn root_a_runtime_that_is_killed_leaves_what_delete_removes() {
    let mut b = Bundle::new("sleep 60");
    b.args(&["sleep", "60"]);
    b.write_config();
    let args = ["run", "-d", "-b", b.dir.to_str().unwrap(), &b.id];
    for turn in 0..40 {
        let mut run = b.oci(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Over the whole of a start, which takes some milliseconds.
        std::thread::sleep(Duration::from_micros(500 * turn));
        let _ = run.kill();
        run.wait().unwrap();
        let deleted = b.verb("delete", &["--force"]);
        assert_eq!(deleted.code, 0, "turn {turn}: {}", deleted.err);
        let left = |_: &Bundle| !b.dir.join("state").join(&b.id).exists() && cgroups_of(&b.id).is_empty();
        b.until(&format!("turn {turn} leaves nothing"), left);
    }
    let still = Command::new("sh").args(["-c", "ls -d /proc/[0-9]*/root 2>/dev/null"]).output().unwrap();
    let roots = String::from_utf8_lossy(&still.stdout).into_owned();
    let inside = roots.lines().filter(|at| fs::read_link(at).is_ok_and(|to| to.starts_with(&b.dir)));
    assert_eq!(inside.count(), 0, "a process is left in the container's root");
}

/// The root of a chroot is no mount, so its propagation cannot be changed.
#[test]
fn root_a_caller_in_a_chroot_is_told_what_is_missing() {
    let b = Bundle::new("echo ran");
    b.write_config();
    let inner = b.dir.join("outer");
    let inside = |at: &str| inner.join(at);
    for dir in ["proc", "dev", "lib", "lib64", "usr", "bundle", "program"] {
        fs::create_dir_all(inside(dir)).unwrap();
    }
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_onggi-oci")).parent().unwrap().display();
    let (at, dir) = (inner.display(), b.dir.display());
    let mounts = format!(
        "set -e; for d in lib lib64 usr dev; do mount --rbind /$d {at}/$d; done; mount -t proc proc {at}/proc; \
         mount --bind {dir} {at}/bundle; mount --bind {program} {at}/program; \
         exec chroot {at} /program/onggi-oci --root /state run -b /bundle {}",
        b.id
    );
    let done: Done = Command::new("unshare").args(["-m", "sh", "-c", &mounts]).output().unwrap().into();
    assert!(done.code == 1 && done.out.is_empty() && done.err.contains("a chroot?"), "{done:?}");
    assert!(!inside("state").join(&b.id).exists());
}

#[test]
fn root_a_caller_that_ignores_its_children_gets_exit_codes_all_the_same() {
    let ignoring =
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])";
    let through = |verb: &Command| -> Done {
        let mut python = Command::new("timeout");
        python.args(["-s", "KILL", "30", "python3", "-c", ignoring]).arg(verb.get_program()).args(verb.get_args());
        python.stdin(Stdio::null()).output().unwrap().into()
    };
    let mut b = Bundle::new("grep SigIgn /proc/self/status; exit 5");
    b.config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/true" }] });
    b.write_config();
    let done = through(&b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]));
    assert_eq!(done.code, 5, "{}", done.err);
    nothing_left(&b);
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let done = through(&b.oci(&["exec", &b.id, "sh", "-c", "exit 6"]));
    assert_eq!(done.code, 6, "{}", done.err);
}

#[test]
fn root_device_rules_that_cannot_hold_are_warned_of() {
    let mut b = Bundle::new("echo ran");
    for (resources, warned) in
        [(json!({ "devices": [{ "allow": false, "access": "rwm" }] }), true), (json!({ "devices": [] }), false)]
    {
        b.config["linux"]["resources"] = resources;
        b.write_config();
        let run = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
        let mut bare = Command::new("unshare");
        bare.args(["-m", "sh", "-c", "umount -R /sys/fs/cgroup && exec \"$@\"", "sh"]);
        let done: Done = bare.arg(run.get_program()).args(run.get_args()).stdin(Stdio::null()).output().unwrap().into();
        assert_eq!((done.code, done.out.as_str()), (0, "ran\n"), "{}", done.err);
        assert_eq!(done.err.contains("device rules do not hold"), warned, "{}", done.err);
    }
}

#[test]
fn root_a_small_limit_of_memory_is_the_programs_and_not_the_runtimes() {
    let mut b = Bundle::new("echo ran");
    b.config["process"]["env"] = json!(["PATH=/bin"]);
    b.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_DATA", "soft": 1_000_000, "hard": 1_000_000 }]);
    let done = b.run();
    assert_eq!((done.code, done.out.as_str()), (0, "ran\n"), "{}", done.err);
}
