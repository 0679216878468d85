//! Wrong input and unsuitable machines: each refusal says what failed, why, and what to do, with Docker's
//! exit code, and leaves nothing behind.

use std::{fs, net::TcpListener, process::Command};

use onggi_tests::{Onggi, assert_refused, machine::sh};

use crate::Stage;

impl Stage {
    /// `run --rm OPTIONS busybox COMMAND` must be refused.
    #[track_caller]
    fn refuses(&self, options: &[&str], command: &[&str], code: i32, pieces: &[&str]) {
        let image = [self.busybox.as_str()];
        let ran = self.onggi.run(&[&["run", "--rm"], options, &image, command].concat());
        assert_refused(&ran, code, pieces);
    }
}

#[test]
fn e2e_commands_that_cannot_be_run_say_why() {
    let stage = Stage::new();
    let none = ["--network", "none"];
    stage.refuses(&none, &["no-such-command"], 127, &["no-such-command", "not found"]);
    stage.refuses(&none, &["/bin/no-such-command"], 127, &["/bin/no-such-command"]);
    stage.refuses(&none, &["/etc/not-executable"], 126, &["/etc/not-executable"]);
    stage.refuses(&none, &["/etc"], 126, &["/etc"]);
    stage.refuses(&none, &["/bin/no-interpreter"], 127, &["/bin/nowhere"]);
    stage.refuses(&none, &["/bin/not-a-program"], 126, &["/bin/not-a-program"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_an_exec_that_fails_says_so_once_and_in_words() {
    let stage = Stage::new();
    stage.onggi.ok(&["run", "-d", "--name", "box", "--network", "none", &stage.busybox, "sleep", "100"]);
    let ran = stage.onggi.run(&["exec", "-w", "/none", "box", "true"]);
    assert_refused(&ran, 127, &["exec failed: unable to start container process: chdir to cwd", "does not exist"]);
    assert!(!ran.stderr.contains("exec failed: exec failed") && !ran.stderr.contains("Flags("), "{ran}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_data_root_may_have_any_name() {
    let stage = Stage::new();
    for name in ["back\\slash", "com,ma", "co:lon", "a b"] {
        let root = stage.onggi.dir().join(name);
        fs::create_dir(&root).expect("make a directory");
        let mut command = Command::new(stage.onggi.program());
        command.arg("--root").arg(&root).arg("--runroot").arg(root.join("run"));
        command.args(["run", "--rm", "--network", "none", &stage.busybox, "echo", "runs"]);
        let ran = stage.onggi.finish(command.env("HOME", stage.onggi.dir()));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "runs\n"), "{ran}");
    }
}

#[test]
fn e2e_malformed_options_are_refused_with_the_text_that_is_wrong() {
    let stage = Stage::new();
    let cases: &[(&[&str], &str)] = &[
        (&["-p", "80:http"], "http"),
        (&["-p", "70000:80"], "70000"),
        (&["-p", "0:0"], "0:0"),
        (&["-p", "1.2.3:80:80"], "1.2.3"),
        (&["-v", "/a:b"], "/a:b"),
        (&["-v", "/:/"], "/:/"),
        (&["-v", "/a:/b:what"], "what"),
        (&["-v", "/no/such/dir:/b"], "/no/such/dir"),
        (&["-u", "1:"], "1:"),
        (&["-u", "-1"], "-1"),
        (&["-u", "4294967296"], "4294967296"),
        (&["-u", "nobody-of-that-name"], "nobody-of-that-name"),
        (&["-u", "0:no-such-group"], "no-such-group"),
        (&["-m", "lots"], "lots"),
        (&["-m", "1k"], "1k"),
        (&["-m", "-5m"], "-5m"),
        (&["--cpus", "none"], "none"),
        (&["--pids-limit", "x"], "x"),
        (&["--network", "moon"], "moon"),
        (&["--cap-add", "FLY"], "FLY"),
        (&["--name", "-bad"], "-bad"),
        (&["--hostname", "a b"], "a b"),
        (&["-e", "=x"], "=x"),
        (&["-w", "relative"], "relative"),
        (&["--no-such-option"], "--no-such-option"),
    ];
    for (options, piece) in cases {
        let image = [stage.busybox.as_str(), "true"];
        let ran = stage.onggi.run(&[&["run", "--rm"], *options, &image].concat());
        assert_eq!(ran.code, Some(125), "{options:?}: {ran}");
        assert!(ran.stderr.contains(piece), "{options:?}: {piece:?} is missing in {ran}");
        assert!(!ran.stderr.contains("panicked"), "{options:?}: {ran}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_malformed_references_are_refused() {
    let stage = Stage::new();
    for name in
        ["UPPER/Case", "a b", "image:", "image@sha256:123", "-x", "a//b", "../etc", "rootfs:", "rootfs:/no/such/dir"]
    {
        let ran = stage.onggi.run(&["run", "--rm", "--", name, "true"]);
        assert_eq!(ran.code, Some(125), "{ran}");
        assert!(ran.stderr.starts_with("onggi: ") && !ran.stderr.contains("panicked"), "{ran}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_taken_name_and_a_taken_port_name_their_owner() {
    let stage = Stage::new();
    let id = stage.onggi.ok(&["run", "-d", "--name", "web", "-p", "8080:80", &stage.busybox, "sleep", "100"]);
    stage.refuses(&["--name", "web"], &["true"], 125, &["web", &id[..12]]);
    stage.refuses(&["-p", "8080:81"], &["true"], 125, &["8080", "web"]);
    stage.refuses(&["-p", "127.0.0.1:8080:81"], &["true"], 125, &["8080"]);
    let listener = TcpListener::bind("0.0.0.0:8081").expect("bind a port");
    stage.refuses(&["-p", "8081:80"], &["true"], 125, &["8081"]);
    drop(listener);
    stage.onggi.ok(&["run", "--rm", "-p", "8081:80", "-p", "8080:80/udp", &stage.busybox, "true"]);
    stage.onggi.ok(&["rm", "-f", "web"]);
    stage.onggi.ok(&["run", "--rm", "-p", "8080:80", &stage.busybox, "true"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_names_that_do_not_exist_are_refused_by_every_verb() {
    let stage = Stage::new();
    for args in [
        &["stop", "ghost"][..],
        &["start", "ghost"],
        &["rm", "ghost"],
        &["kill", "ghost"],
        &["logs", "ghost"],
        &["wait", "ghost"],
        &["inspect", "ghost"],
        &["rmi", "ghost"],
        &["tag", "ghost", "other"],
    ] {
        let ran = stage.onggi.run(args);
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stderr.contains("ghost"), "{ran}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_read_only_root_directory_is_named() {
    let stage = Stage::new();
    let root = stage.onggi.root();
    sh(&format!("mount -t tmpfs -o ro none {}", root.display()));
    stage.refuses(&[], &["true"], 125, &[&root.to_string_lossy(), "ead-only"]);
    sh(&format!("umount {}", root.display()));
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_full_disk_is_said_and_removing_still_works() {
    let stage = Stage::new();
    let root = stage.onggi.root();
    sh(&format!("mount -t tmpfs -o size=1m none {}", root.display()));
    stage.refuses(&["--network", "none"], &["true"], 125, &["o space left"]);
    sh(&format!("mount -o remount,size=20m {}", root.display()));
    stage.onggi.ok(&["run", "-d", "--name", "box", "--network", "none", &stage.busybox, "sleep", "100"]);
    sh(&format!("cat /dev/zero > {}/fill 2>/dev/null || true", root.display()));
    stage.onggi.ok(&["rm", "-f", "box"]);
    sh(&format!("rm {}/fill", root.display()));
    stage.onggi.ok(&["run", "--rm", "--network", "none", &stage.busybox, "true"]);
    assert_eq!(sh(&format!("find {0}/containers {0}/tmp -mindepth 1", root.display())), "");
    sh(&format!("umount {}", root.display()));
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_kernel_without_overlay_is_said() {
    let stage = Stage::new();
    sh(
        "grep -v overlay /proc/filesystems > /tmp/onggi-e2e-fs.$PPID; mount --bind /tmp/onggi-e2e-fs.$PPID /proc/filesystems; rm /tmp/onggi-e2e-fs.$PPID",
    );
    stage.refuses(&["--network", "none"], &["true"], 125, &["overlay"]);
    sh("umount /proc/filesystems");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_missing_cgroup_controller_is_named() {
    let stage = Stage::new();
    if !std::path::Path::new("/sys/fs/cgroup/memory").is_dir() {
        // Pure cgroup v2: hide the one hierarchy.
        sh("mount -t tmpfs none /sys/fs/cgroup");
    } else {
        sh("umount /sys/fs/cgroup/memory");
    }
    stage.refuses(&["--network", "none", "-m", "64m"], &["true"], 125, &["memory"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_another_users_store_is_refused() {
    let stage = Stage::new();
    let onggi = Onggi::new();
    fs::set_permissions(onggi.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("open the directory");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "12345", "--regid", "12345", "--clear-groups", "--"]);
    let inner = onggi.command(&["run", "--rm", "--network", "none", "host:", "true"]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear().env("PATH", "/usr/bin:/bin");
    // The program may be in a directory that only root can enter; then there is nothing to test here.
    let ran = onggi.finish(&mut command);
    if ran.code != Some(126) && ran.code != Some(127) {
        assert_refused(&ran, 125, &[&onggi.root().to_string_lossy()]);
    }
    stage.onggi.assert_nothing_left();
}
