//! Terminals: what goes over a console socket, what the process has for one, its size.

use std::{
    fs,
    io::{IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::{Command, Stdio},
    thread,
};

use onggi_tests::{Bundle, Instance, eventually};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::{
    compare::same,
    lifecycle::Steps,
    probe::{View, normalise},
};

/// What an engine is sent: the bytes, and how many descriptors; the first of them.
fn receive(listener: &UnixListener) -> (Vec<u8>, usize, Option<OwnedFd>) {
    let (stream, _) = listener.accept().expect("the runtime connects");
    let (mut bytes, mut fds) = (vec![0u8; 4096], Vec::new());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
    bytes.truncate(got.expect("receive the terminal").bytes);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let count = fds.len();
    (bytes, count, fds.into_iter().next())
}

/// Everything that the terminal shows until `end`.
fn read_until(master: &fs::File, end: &str) -> String {
    let mut master = master.try_clone().expect("share the terminal");
    let (send, receive) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut piece = [0; 1024];
        // EIO: the last process has let go of it.
        while let Ok(n @ 1..) = master.read(&mut piece) {
            let _ = send.send(String::from_utf8_lossy(&piece[..n]).into_owned());
        }
    });
    let mut text = String::new();
    eventually(&format!("the terminal shows {end:?}"), || {
        text.extend(receive.try_iter());
        text.contains(end).then_some(())
    });
    let shown = text.split_inclusive(end).next().unwrap_or_default();
    shown.replace('\r', "")
}

const LOOK: &str = "tty; stty size; for f in 0 1 2; do readlink /proc/$$/fd/$f; done; set -- /proc/$$/fd/*; echo $#; \
    stat -c '%F %t %a %u' /dev/console /dev/pts/0; grep -o ' /dev/console .* - [a-z]*' /proc/self/mountinfo | wc -l; \
    awk '{ print ($1 == $6), ($7 != 0), ($8 == $1) }' /proc/$$/stat; [ -t 0 ] && echo terminal; echo END";

fn through_socket(instance: &Instance, user: u32, size: Option<(u16, u16)>) -> View {
    let mut steps = Steps::new(instance);
    let mut bundle = Bundle::script(LOOK);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["user"] = json!({ "uid": user, "gid": user });
    if let Some((height, width)) = size {
        bundle.config["process"]["consoleSize"] = json!({ "height": height, "width": width });
    }
    let id = instance.id("tty");
    let socket = instance.dir().join("console.sock");
    let listener = UnixListener::bind(&socket).expect("listen");
    let taking = thread::spawn(move || receive(&listener));
    let path = socket.display().to_string();
    let ran = instance.make(&bundle, &id, "create", &["--console-socket", &path]);
    steps.ran("create", &ran);
    let (bytes, count, master) = taking.join().expect("the terminal arrives");
    let name = String::from_utf8_lossy(&bytes).into_owned();
    // runc and crun send the terminal's name, of which nobody reads more than that there is one.
    steps.see("a name was sent", !name.is_empty());
    steps.see("descriptors", count);
    let master = fs::File::from(master.expect("a descriptor"));
    steps.run("start", &["start", &id]);
    let text = read_until(&master, "END");
    steps.see("inside", normalise(&text, &bundle, &id));
    instance.wait_status(&id, "stopped");
    steps.view
}

#[test]
fn conformance_terminal_goes_over_the_console_socket() {
    same(|instance| through_socket(instance, 0, None));
    same(|instance| through_socket(instance, 1000, None));
}

#[test]
fn conformance_terminal_has_the_size_that_was_asked_for() {
    same(|instance| through_socket(instance, 0, Some((33, 101))));
}

#[test]
fn conformance_terminal_of_exec_goes_over_the_console_socket() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let bundle = Bundle::new(&["sleep", "1000"]);
        let id = instance.id("tty");
        instance.start(&bundle, &id);
        let socket = instance.dir().join("console.sock");
        let listener = UnixListener::bind(&socket).expect("listen");
        let taking = thread::spawn(move || receive(&listener));
        let path = socket.display().to_string();
        let script = "tty; [ -t 1 ] && read line && echo got $line; echo END";
        let ran = instance.run(&["exec", "-d", "--tty", "--console-socket", &path, &id, "sh", "-c", script]);
        steps.ran("exec", &ran);
        let (_, count, master) = taking.join().expect("the terminal arrives");
        steps.see("descriptors", count);
        let mut master = fs::File::from(master.expect("a descriptor"));
        master.write_all(b"words\n").expect("type");
        // The terminal echoes what is typed when it likes.
        let text = read_until(&master, "END");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        steps.see("inside", lines.join("\n"));
        steps.view
    });
}

#[test]
fn conformance_terminal_needs_a_socket_and_the_socket_a_terminal() {
    for (terminal, verb, flags) in [
        (true, "create", &[][..]),
        (true, "run", &["--detach"]),
        (true, "create", &["--console-socket", "/not/there"]),
        (true, "create", &["--console-socket", "/etc/passwd"]),
        (false, "create", &["--console-socket", "/not/there"]),
    ] {
        same(|instance| {
            let mut steps = Steps::new(instance);
            let mut bundle = Bundle::new(&["true"]);
            bundle.config["process"]["terminal"] = json!(terminal);
            let id = instance.id("tty");
            let ran = instance.make(&bundle, &id, verb, flags);
            steps.see("refused", ran.code != Some(0));
            steps.see("~why", ran.stderr);
            steps.see("left", instance.status(&id).unwrap_or_default());
            steps.view
        });
    }
}

/// What a command prints into a file while it has a terminal, which runc and crun insist on.
fn beside_a_terminal(instance: &Instance, args: &[&str]) -> String {
    let command = instance.command(args);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))).collect();
    let out = instance.dir().join("printed");
    let line = format!("{} > {}", quoted.join(" "), out.display());
    let ran = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
    let ran = ran.expect("util-linux");
    // runc and crun make the input raw when some of it may have been echoed already, before or behind what is printed.
    let printed = fs::read_to_string(out).unwrap_or_default();
    format!("{} {:?}", ran.status, printed.replace("^@", ""))
}

#[test]
fn conformance_terminal_of_the_foreground_leaves_line_feeds_alone() {
    const SCRIPT: &str = "echo one; echo two; tty";
    same(|instance| {
        let mut steps = Steps::new(instance);
        let mut bundle = Bundle::script(SCRIPT);
        bundle.config["process"]["terminal"] = json!(true);
        bundle.write();
        let path = bundle.path().display().to_string();
        steps.see("run", beside_a_terminal(instance, &["run", "--bundle", &path, &instance.id("tty")]));
        let bundle = Bundle::new(&["sleep", "1000"]);
        let id = instance.id("exec-tty");
        instance.start(&bundle, &id);
        steps.see("exec", beside_a_terminal(instance, &["exec", "--tty", &id, "sh", "-c", SCRIPT]));
        steps.view
    });
}
