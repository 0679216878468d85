//! I3: nothing of the host that was open reaches a container: not as a descriptor, not as a directory.

use std::{fs, os::fd::OwnedFd};

use onggi_tests::isolated;
use serde_json::json;

use crate::jar::{Host, Jar};

/// Descriptors of directories of the host that a careless caller hands down.
fn leak(jar: &Jar) -> Vec<OwnedFd> {
    let open = || fs::File::open(jar.dir()).expect("open a directory");
    // dup(2) does not set close-on-exec.
    (0..8).map(|_| rustix::io::dup(open()).expect("dup")).collect()
}

#[test]
fn root_cve_2024_21626_a_working_directory_outside_the_root_is_refused() {
    isolated();
    let script = "test -e decoy -o -e ../../../../../../decoy/file && exit 42; ls; exit 42";
    let mut jar = Jar::new(script);
    let _leaked = leak(&jar);
    let host = Host::look(&jar);
    for number in 3..=64 {
        for below in ["", "/../..", "/decoy"] {
            jar.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}{below}"));
            jar.run().refused();
        }
    }
    jar.link("work", "/proc/self/fd/7");
    jar.config["process"]["cwd"] = json!("/work");
    jar.run().refused();
    host.assert_unchanged(&jar);
}

#[test]
fn root_cve_2024_21626_exec_refuses_a_working_directory_outside_the_root() {
    isolated();
    let jar = Jar::new("sleep 60");
    jar.link("work", "/proc/self/fd/7");
    jar.running();
    let _leaked = leak(&jar);
    let escape = ["sh", "-c", "ls; exit 42"];
    for number in 3..=64 {
        jar.exec(&["--cwd", &format!("/proc/self/fd/{number}")], &escape).refused();
    }
    jar.exec(&["--cwd", "/work"], &escape).refused();
    jar.exec(&["--cwd", "/proc/1/fd/3/../../.."], &escape).refused();
}

#[test]
fn root_cve_2024_21626_nothing_that_a_caller_leaked_is_inside() {
    isolated();
    let mut jar = Jar::new("ls -l /proc/self/fd; sleep 60");
    let _leaked = leak(&jar);
    let list = format!("ls -l /proc/self/fd > {}", jar.path("hook-fds").display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", list] }]);
    jar.config["hooks"] = json!({ "createRuntime": hook });
    jar.running();
    jar.until("the list", |out| out.lines().count() >= 4);
    let tag = jar.dir().display().to_string();
    let own = |line: &&str| line.contains(&tag) && !line.ends_with("/out") && !line.ends_with("/err");
    assert_eq!(jar.output().lines().filter(own).count(), 0, "{}", jar.output());
    let hook = fs::read_to_string(jar.path("hook-fds")).expect("the hook has written its list");
    assert!(!hook.lines().any(|line| line.ends_with(&tag)), "{hook}");
    let exec = jar.exec(&[], &["ls", "-l", "/proc/self/fd"]);
    assert!(!exec.out.contains(&tag), "{exec:?}");
}

#[test]
fn root_cve_2024_21626_benign_working_directories_may_be_links_and_lie_in_proc() {
    isolated();
    let mut jar = Jar::new("pwd; sleep 60");
    jar.make_dir("rootfs/srv/app");
    jar.link("app", "/srv/app");
    jar.config["process"]["cwd"] = json!("/app");
    jar.running();
    jar.until("the directory", |out| out == "/srv/app\n");
    jar.exec(&["--cwd", "/app"], &["pwd"]).printed("/srv/app\n");
    assert_eq!(jar.exec(&["--cwd", "/proc/self"], &["true"]).code, 0);
    assert_eq!(jar.exec(&["--cwd", "/"], &["pwd"]).out, "/\n");
}

/// Looks, from inside, at every process that appears: at the descriptors, the root and the directory. What it
/// knows the host by is a file that no container has.
fn tracer(jar: &Jar) -> String {
    let host = jar.decoy();
    format!(
        "echo ready; while :; do for p in /proc/[0-9]*; do \
           for at in $p/root $p/cwd $p/fd/*; do \
             test -e $at{0}/file && echo FOUND $at; test -e $at/decoy/file && echo FOUND $at; done; \
         done 2>/dev/null; done",
        host.display()
    )
}

fn nothing_found(jar: &Jar, execs: usize) {
    jar.until("the tracer looks", |out| out.contains("ready"));
    for _ in 0..execs {
        let done = jar.exec(&[], &["true"]);
        assert_eq!(done.code, 0, "{}", done.err);
    }
    assert!(!jar.output().contains("FOUND"), "{}", jar.output());
}

#[test]
fn root_cve_2016_9962_a_tracer_inside_sees_nothing_of_the_host_while_others_enter() {
    isolated();
    let mut jar = Jar::new("");
    jar.script(&tracer(&jar));
    jar.running();
    nothing_found(&jar, 100);
}

/// The root of a user namespace has every right there, the right to trace too.
#[test]
fn root_cve_2016_9962_a_tracer_with_rights_in_a_user_namespace_sees_nothing_either() {
    isolated();
    let mut jar = Jar::small("");
    jar.script(&tracer(&jar));
    jar.add_cap("CAP_SYS_PTRACE");
    jar.by_user(54_321);
    jar.running();
    nothing_found(&jar, 100);
}

/// Until `start` it is the runtime in the program's clothes: same user, same capabilities.
#[test]
fn root_cve_2016_9962_a_container_that_waits_for_start_cannot_be_looked_into() {
    isolated();
    let jar = Jar::new("true");
    assert_eq!(jar.create().code, 0);
    let look = "for at in exe cwd root fd/0 fd/3; do readlink /proc/1/$at && exit 42; done; \
                cat /proc/1/environ && exit 42; echo nothing";
    jar.exec(&[], &["sh", "-c", look]).printed("nothing\n");
    assert_eq!(jar.verb("start").code, 0);
}

#[test]
fn root_cve_2016_9962_benign_a_container_sees_its_own_processes() {
    isolated();
    let jar = Jar::new("sleep 60");
    jar.running();
    let done =
        jar.exec(&[], &["sh", "-c", "readlink /proc/1/root && ls /proc/1/fd | wc -l && readlink /proc/self/cwd"]);
    done.printed("/\n3\n/\n");
}
