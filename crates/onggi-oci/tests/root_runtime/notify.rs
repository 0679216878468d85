//! `SCMP_ACT_NOTIFY`: who is told what, when, and what happens without an agent.

use std::{
    fs,
    io::{IoSliceMut, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    process::Stdio,
    thread::{self, JoinHandle},
};

use onggi_sys::seccomp::{Answer, Notification, receive, respond};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};
use serde_json::{Value, json};

use crate::harness::{Bundle, Done};

/// What an agent was told: the descriptors and the document.
struct Told {
    fds: Vec<OwnedFd>,
    state: Value,
}

/// An agent that takes `count` connections.
fn agent(b: &Bundle, count: usize) -> (PathBuf, JoinHandle<Vec<Told>>) {
    let path = b.dir.join("agent.sock");
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    (path, thread::spawn(move || (0..count).map(|_| hear(listener.accept().unwrap().0)).collect()))
}

fn hear(mut stream: UnixStream) -> Told {
    let (mut bytes, mut fds) = (vec![0u8; 64 * 1024], Vec::new());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let n = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(got) = message {
            fds.extend(got);
        }
    }
    bytes.truncate(n);
    stream.read_to_end(&mut bytes).unwrap();
    Told { fds, state: serde_json::from_slice(&bytes).unwrap() }
}

/// mkdir asks the agent at `listener`.
fn bundle(script: &str) -> Bundle {
    let mut b = Bundle::new(script);
    let path = b.dir.join("agent.sock");
    b.config["annotations"] = json!({ "org.example.key": "value" });
    b.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "opaque",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]
    });
    b
}

fn check(b: &Bundle, told: &Told, status: &str) -> i64 {
    assert_eq!(told.fds.len(), 1);
    let link = fs::read_link(format!("/proc/self/fd/{}", told.fds[0].as_raw_fd())).unwrap();
    assert!(link.to_string_lossy().contains("seccomp notify"), "{link:?}");
    let s = &told.state;
    assert_eq!(s["fds"], json!(["seccompFd"]));
    assert_eq!((&s["metadata"], &s["state"]["id"]), (&json!("opaque"), &json!(b.id)));
    assert_eq!((&s["state"]["status"], &s["state"]["bundle"]), (&json!(status), &json!(b.dir)));
    assert_eq!(s["state"]["annotations"]["org.example.key"], "value");
    assert!(s["ociVersion"].is_string() && s["state"]["ociVersion"].is_string());
    s["pid"].as_i64().unwrap()
}

/// An agent that is gone again: the kernel answers ENOSYS.
const TRY: &str = "mkdir /tmp/x 2>&1; sleep 60";

#[test]
fn root_the_agent_of_a_run_gets_one_listener_and_the_state() {
    for no_new_privileges in [false, true] {
        let mut b = bundle(TRY);
        b.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let (_, agent) = agent(&b, 1);
        let done = b.run_detached(&[]);
        assert_eq!(done.code, 0, "{}", done.out);
        let told = agent.join().unwrap();
        let pid = check(&b, &told[0], "creating");
        assert_eq!(pid, i64::from(b.pid()));
        assert_eq!(told[0].state["state"]["pid"], pid);
        drop(told);
        b.until("answer", |b| b.output().contains("Function not implemented"));
    }
}

#[test]
fn root_the_agent_of_a_created_container_knows_it_before_start() {
    for no_new_privileges in [false, true] {
        let mut b = bundle(TRY);
        b.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let (_, agent) = agent(&b, 1);
        assert_eq!(b.create().code, 0);
        let told = agent.join().unwrap();
        assert_eq!(check(&b, &told[0], "creating"), i64::from(b.pid()));
        assert_eq!(b.verb("start", &[]).code, 0);
        drop(told);
        b.until("answer", |b| b.output().contains("Function not implemented"));
    }
}

#[test]
fn root_exec_tells_the_agent_of_its_own_process() {
    let b = bundle("sleep 60");
    let (_, agent) = agent(&b, 2);
    assert_eq!(b.run_detached(&[]).code, 0);
    let pid_file = b.dir.join("exec.pid");
    // A detached process keeps the streams.
    let mut exec = b.oci(&["exec", "-d", "--pid-file", pid_file.to_str().unwrap(), &b.id, "sleep", "60"]);
    assert!(exec.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let told = agent.join().unwrap();
    let pid = check(&b, &told[1], "running");
    assert_eq!(fs::read_to_string(pid_file).unwrap(), pid.to_string());
    assert_eq!(told[1].state["state"]["pid"], i64::from(b.pid()));
}

#[test]
fn root_the_listener_is_not_in_the_program_nor_in_its_start_hook() {
    let mut b = bundle("ls -l /proc/self/fd; cat /tmp/hook");
    let script = "ls -l /proc/self/fd > /tmp/hook";
    b.config["hooks"] =
        json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }] });
    let (_, agent) = agent(&b, 1);
    let done = b.run();
    assert!(!done.out.contains("seccomp") && done.out.contains(" 2 -> "), "{}{}", done.out, done.err);
    // 0, 1, 2 and the directory that ls has open, twice.
    assert_eq!(done.out.lines().filter(|l| l.starts_with('l')).count(), 8, "{}", done.out);
    agent.join().unwrap();
}

#[test]
fn root_a_container_with_mapped_users_hands_its_listener_over_too() {
    let mut b = bundle(TRY);
    b.add_namespace(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    b.config["linux"]["uidMappings"] = map.clone();
    b.config["linux"]["gidMappings"] = map;
    for d in [b.root(), b.dir.clone()] {
        fs::set_permissions(&d, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let (_, agent) = agent(&b, 1);
    let done = b.run_detached(&[]);
    assert_eq!(done.code, 0, "{}", done.out);
    assert_eq!(agent.join().unwrap()[0].fds.len(), 1);
}

/// An agent that answers everything, until nobody can ask any more.
fn answering(b: &Bundle, answer: impl Fn(&Notification) -> Answer + Send + 'static) -> JoinHandle<usize> {
    let (_, agent) = agent(b, 1);
    thread::spawn(move || {
        let told = agent.join().unwrap();
        let listener = told[0].fds[0].as_fd();
        let mut asked = 0;
        loop {
            let mut fds = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            if fds[0].revents().contains(PollFlags::HUP) {
                return asked;
            }
            if let Ok(question) = receive(listener) {
                asked += 1;
                let _ = respond(listener, question.id, answer(&question));
            }
        }
    })
}

#[test]
fn root_calls_that_lead_to_the_program_may_be_asked_about() {
    for no_new_privileges in [false, true] {
        for create in [false, true] {
            let mut b = bundle("echo ran");
            b.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            let names = json!(["execve", "openat", "open", "read", "close", "sendmsg", "recvmsg", "accept4"]);
            b.config["linux"]["seccomp"]["syscalls"][0]["names"] = names;
            let agent = answering(&b, |_| Answer::Continue);
            if create {
                assert_eq!(b.create().code, 0);
                assert_eq!(b.verb("start", &[]).code, 0);
            } else {
                let done = b.run_detached(&[]);
                assert_eq!(done.code, 0, "{}", done.out);
            }
            b.until("output", |b| b.output() == "ran\n");
            assert!(agent.join().unwrap() > 2);
        }
    }
}

#[test]
fn root_the_program_gets_the_errno_of_the_agent() {
    let b = bundle("mkdir /tmp/x; ls /tmp");
    let agent = answering(&b, |_| Answer::Fail(rustix::io::Errno::NOMEDIUM));
    let done = b.run();
    assert!(done.err.contains("No medium found"), "{}", done.err);
    assert_eq!((done.out.as_str(), agent.join().unwrap()), ("", 1));
}

fn refused(change: impl Fn(&mut Value)) -> Done {
    let mut b = bundle("true");
    change(&mut b.config["linux"]["seccomp"]);
    let done = b.run();
    assert_ne!(done.code, 0);
    assert_eq!(b.status(), "absent");
    done
}

#[test]
fn root_without_an_agent_the_container_does_not_start() {
    let done = refused(|_| {});
    assert!(done.err.contains("failed to connect with seccomp agent"), "{}", done.err);
    for path in ["/some/non-existing.sock", "@abstract"] {
        let done = refused(|s| s["listenerPath"] = json!(path));
        assert!(done.err.contains("failed to connect with seccomp agent"), "{}", done.err);
    }
    let done = refused(|s| s["listenerPath"] = json!(""));
    assert!(done.err.contains("listenerPath is not set"), "{}", done.err);
}

#[test]
fn root_what_would_ask_the_agent_about_telling_the_agent_is_refused() {
    let done = refused(|s| s["syscalls"][0]["names"] = json!(["write"]));
    assert!(done.err.contains("SCMP_ACT_NOTIFY cannot be used for the write syscall"), "{}", done.err);
    let done = refused(|s| s["defaultAction"] = json!("SCMP_ACT_NOTIFY"));
    assert!(done.err.contains("SCMP_ACT_NOTIFY cannot be used as default action"), "{}", done.err);
}

#[test]
fn root_a_listener_path_without_notify_is_not_used() {
    let mut b = bundle("mkdir /tmp/x && ls -d /tmp/x");
    b.config["linux"]["seccomp"].as_object_mut().unwrap().remove("syscalls");
    assert_eq!(b.run().out, "/tmp/x\n");
}
