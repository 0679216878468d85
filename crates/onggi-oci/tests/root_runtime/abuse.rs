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
    let b = Bundle::new("echo ran");
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
        let mut b = Bundle::new("echo ran");
        *b.config.pointer_mut(pointer).unwrap() = wrong.clone();
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
