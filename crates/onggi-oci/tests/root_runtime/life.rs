//! A container's life at its edges: signals, crashes, races, damaged records, what is handed in and out.

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            net::{UnixDatagram, UnixListener},
            process::CommandExt,
        },
    },
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;

use crate::harness::{Bundle, Done, cgroups_of};

/// `create` with streams that nobody waits for.
fn silent(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// In a group of its own at the top of every hierarchy, where the tests look.
fn in_top_group(script: &str) -> Bundle {
    let mut b = Bundle::new(script);
    b.config["linux"]["cgroupsPath"] = json!(format!("/onggi-test-{}", b.id));
    b
}

fn received(listener: &UnixListener) -> (Vec<u8>, OwnedFd) {
    let (stream, _) = listener.accept().unwrap();
    let (mut name, mut fds) = ([0u8; 64], Vec::new());
    let n = onggi_sys::unix::recv_with_fds(stream.as_fd(), &mut name, &mut fds).unwrap();
    (name[..n].to_vec(), fds.pop().expect("a descriptor"))
}

#[test]
fn root_a_created_container_ends_by_the_signal_that_ends_others() {
    let b = Bundle::new("true");
    assert_eq!(b.create().code, 0);
    assert_eq!(b.verb("kill", &["SIGTERM"]).code, 0);
    b.until("stopped", |b| b.status() == "stopped");
    assert!(b.verb("start", &[]).err.contains("cannot start a container that has stopped"));
    assert_eq!(b.verb("delete", &[]).code, 0);
}

#[test]
fn root_signals_have_names_numbers_and_zero() {
    let b = Bundle::new("trap 'echo USR1' USR1; echo up; while :; do sleep 0.05; done");
    assert_eq!(b.run_detached(&[]).code, 0);
    b.until("up", |b| b.output().contains("up"));
    for signal in ["0", "WINCH", "sigwinch", "28", "SIGRTMIN+3"] {
        assert_eq!(b.verb("kill", &[signal]).code, 0, "{signal}");
    }
    for bad in ["FOO", "-1", "65", "SIGRTMAX+1"] {
        let done = b.verb("kill", &[bad]);
        assert!(done.code == 1 && done.err.contains("unknown signal"), "{bad}: {}", done.err);
    }
    assert_eq!(b.verb("kill", &["usr1"]).code, 0);
    b.until("the trap", |b| b.output().contains("USR1"));
}

#[test]
fn root_a_paused_container_dies_by_sigkill_and_is_deleted_by_force() {
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    assert_eq!(b.verb("pause", &[]).code, 0);
    assert!(b.verb("pause", &[]).err.contains("container not running"));
    assert!(b.verb("delete", &[]).err.contains("that is not stopped: paused"));
    assert_eq!(b.verb("kill", &["KILL"]).code, 0);
    b.until("stopped", |b| b.status() == "stopped");
    assert!(b.verb("resume", &[]).err.contains("container not paused"));
    assert!(b.verb("kill", &[]).err.contains("container not running"));
    assert_eq!(b.verb("kill", &["--all", "0"]).code, 0, "as runc has it");
    assert!(b.exec(&[], &["true"]).err.contains("cannot exec in a stopped container"));
    assert_eq!(b.verb("delete", &[]).code, 0);
    assert_eq!(b.run_detached(&[]).code, 0);
    assert_eq!(b.verb("pause", &[]).code, 0);
    assert_eq!(b.verb("delete", &["--force"]).code, 0);
}

#[test]
fn root_exec_into_a_paused_container_waits_for_resume_when_told_to() {
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    assert_eq!(b.verb("pause", &[]).code, 0);
    let mut waiting = b.oci(&["exec", "--ignore-paused", &b.id, "echo", "thawed"]);
    let mut child = waiting.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "it runs while the container stands still");
    assert_eq!(b.verb("resume", &[]).code, 0);
    let done: Done = child.wait_with_output().unwrap().into();
    assert_eq!((done.code, done.out.as_str()), (0, "thawed\n"));
}

/// Without a pid namespace of its own nothing dies with the first process.
#[test]
fn root_processes_that_share_the_hosts_pids_are_killed_and_deleted_with_the_container() {
    for how in ["kill", "delete"] {
        let mut b = in_top_group("sleep 61 & sleep 61");
        b.remove_namespace("pid");
        assert_eq!(b.run_detached(&[]).code, 0);
        assert!(silent(&mut b.oci(&["exec", "-d", &b.id, "sleep", "61"])).status().unwrap().success());
        let first = b.pid();
        let count =
            |b: &Bundle| b.verb("ps", &["-eo", "pid,stat"]).out.lines().filter(|l| !l.contains('Z')).count() - 1;
        b.until("three processes", |b| count(b) == 3);
        onggi_sys::process::kill(first, 9).unwrap();
        b.until("stopped", |b| b.status() == "stopped");
        assert_eq!(count(&b), 2, "the others live on");
        if how == "kill" {
            assert_eq!(b.verb("kill", &["KILL"]).code, 0);
            b.until("no process", |b| count(b) == 0);
        }
        assert_eq!(b.verb("delete", &[]).code, 0);
        assert!(cgroups_of(&b.id).is_empty());
    }
}

#[test]
fn root_one_of_many_creates_of_one_id_wins() {
    let b = Bundle::new("sleep 60");
    b.write_config();
    let run = || silent(&mut b.oci(&["run", "-d", "-b", b.dir.to_str().unwrap(), &b.id])).spawn().unwrap();
    let children: Vec<_> = (0..6).map(|_| run()).collect();
    let codes = children.into_iter().map(|mut c| c.wait().unwrap().code());
    assert_eq!(codes.filter(|c| *c == Some(0)).count(), 1);
    assert_eq!(b.status(), "running");
}

#[test]
fn root_a_runtime_killed_while_it_creates_leaves_what_delete_force_removes() {
    let b = in_top_group("sleep 60");
    b.write_config();
    for step in 0..24 {
        let verb: &[&str] = if step % 2 == 0 { &["create"] } else { &["run", "-d"] };
        let mut command = b.oci(&[verb, &["-b", b.dir.to_str().unwrap(), &b.id]].concat());
        let mut child = silent(&mut command).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 * step));
        child.kill().unwrap();
        child.wait().unwrap();
        let done = b.verb("delete", &["--force"]);
        assert_eq!(done.code, 0, "{}", done.err);
        assert_eq!((b.status().as_str(), cgroups_of(&b.id).len()), ("absent", 0), "killed after {} ms", 5 * step);
    }
}

#[test]
fn root_a_damaged_state_hides_no_other_container_and_is_deleted_by_force_with_its_processes() {
    let b = in_top_group("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let pid = b.pid();
    let roots = b.dir.join("state");
    fs::create_dir_all(roots.join("huge")).unwrap();
    fs::write(roots.join("huge/state.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    let list: Done = b.oci(&["list", "-q"]).output().unwrap().into();
    assert!(list.code == 0 && list.out.trim() == b.id && list.err.contains("load container huge"), "{}", list.err);
    fs::write(roots.join(&b.id).join("state.json"), "{\"x").unwrap();
    for verb in ["state", "kill", "start", "ps", "pause", "delete"] {
        let done = b.verb(verb, &[]);
        assert!(done.code == 1 && done.err.contains("read the state of container"), "{verb}: {}", done.err);
    }
    for id in [b.id.as_str(), "huge"] {
        assert_eq!(b.oci(&["delete", "-f", id]).status().unwrap().code(), Some(0));
    }
    b.until("dead", |_| onggi_sys::procfs::stat(pid).unwrap().is_none_or(|s| s.has_ended()));
}

#[test]
fn root_a_bundle_changed_or_gone_after_create_changes_nothing() {
    let mut b = Bundle::new("echo $A; sleep 60");
    b.config["process"]["env"] = json!(["PATH=/bin", "A=created"]);
    assert_eq!(b.create().code, 0);
    b.config["process"]["env"] = json!(["PATH=/bin", "A=changed"]);
    b.write_config();
    assert_eq!(b.verb("start", &[]).code, 0);
    b.until("output", |b| b.output() == "created\n");
    assert_eq!(b.exec(&[], &["sh", "-c", "echo $A"]).out, "created\n");
    fs::remove_file(b.dir.join("config.json")).unwrap();
    assert_eq!(b.exec(&[], &["sh", "-c", "echo $A"]).out, "created\n");
    assert_eq!(b.status(), "running");
}

#[test]
fn root_keep_leaves_a_stopped_container_with_its_cgroup() {
    let b = in_top_group("exit 3");
    assert_eq!(b.run_with(&["--keep", "--pid-file", b.dir.join("pid").to_str().unwrap()]).code, 3);
    assert!(fs::read_to_string(b.dir.join("pid")).unwrap().parse::<i32>().is_ok());
    assert_eq!(b.status(), "stopped");
    assert!(!cgroups_of(&b.id).is_empty());
    assert_eq!(b.verb("delete", &[]).code, 0);
}

#[test]
fn root_descriptors_of_socket_activation_and_of_the_caller_arrive_in_order() {
    let mut b = Bundle::new("echo $LISTEN_FDS $LISTEN_PID; cat /proc/self/fd/3 /proc/self/fd/4; ls /proc/1/fd; true");
    b.write_config();
    fs::write(b.dir.join("three"), "three\n").unwrap();
    fs::write(b.dir.join("four"), "four\n").unwrap();
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3<three 4<four 7<four";
    let through_shell = |flags: &[&str]| -> Done {
        let oci = b.oci(&[&["run", "-b", "."], flags, &[b.id.as_str()]].concat());
        let mut shell = Command::new("/bin/bash");
        shell.args(["-c", script, "sh"]).arg(oci.get_program()).args(oci.get_args()).current_dir(&b.dir);
        shell.stdin(Stdio::null()).output().unwrap().into()
    };
    let done = through_shell(&["--preserve-fds", "1"]);
    assert_eq!(done.out, "1 1\nthree\nfour\n0\n1\n2\n3\n4\n", "{}", done.err);
    let done = through_shell(&["--preserve-fds", "3"]);
    assert_eq!(done.out, "1 1\nthree\nfour\n0\n1\n2\n3\n4\n", "what is not open stays so: {}", done.err);
    let done = through_shell(&["--preserve-fds", "6"]);
    assert_eq!(done.out, "1 1\nthree\nfour\n0\n1\n2\n3\n4\n7\n", "nor is anything of ours there: {}", done.err);
    let more = ["run", "-b", b.dir.to_str().unwrap(), "--preserve-fds", "2", &b.id];
    let done: Done = b.oci(&more).env_remove("LISTEN_FDS").stdin(Stdio::null()).output().unwrap().into();
    let refused = "unable to stat preserved-fd 0 (of 2): descriptor 3 is not open";
    assert!(done.code == 1 && done.err.contains(refused) && done.out.is_empty(), "{}", done.err);
    b.args(&["sh", "-c", "echo none$LISTEN_FDS"]);
    b.write_config();
    let mut other = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
    let done: Done = other.env("LISTEN_FDS", "1").env("LISTEN_PID", "1").output().unwrap().into();
    assert_eq!(done.out, "none\n", "variables that are meant for another process");
}

#[test]
fn root_orphans_of_a_container_among_the_hosts_pids_are_the_runtimes_children_unless_told_not_to() {
    let mut b = Bundle::new("sh /between | cat");
    b.remove_namespace("pid");
    let parent = "cut -d' ' -f4 /proc/$$/stat";
    fs::write(b.root().join("between"), "sh /orphan $$ &").unwrap();
    let orphan = format!("while [ \"$({parent})\" = \"$1\" ]; do sleep 0.01; done; {parent}");
    fs::write(b.root().join("orphan"), orphan).unwrap();
    b.write_config();
    for (flags, ours) in [(&[][..], true), (&["--no-subreaper"][..], false)] {
        let mut command = b.oci(&[&["run", "-b", b.dir.to_str().unwrap()], flags, &[b.id.as_str()]].concat());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let runtime = child.id().to_string();
        let done: Done = child.wait_with_output().unwrap().into();
        assert_eq!(done.out.trim() == runtime, ours, "{runtime}: {}{}", done.out, done.err);
        assert!(done.out.trim().parse::<u32>().is_ok_and(|pid| pid > 0), "{}{}", done.out, done.err);
    }
}

#[test]
fn root_a_pidfd_socket_gets_the_process() {
    let b = Bundle::new("sleep 60");
    b.write_config();
    let at = b.dir.join("pidfd.sock");
    let listener = UnixListener::bind(&at).unwrap();
    let args = ["create", "--pidfd-socket", at.to_str().unwrap(), "-b", b.dir.to_str().unwrap(), &b.id];
    assert!(silent(&mut b.oci(&args)).status().unwrap().success());
    let (name, init) = received(&listener);
    assert_eq!(name, b"pidfd");
    assert_eq!(b.verb("start", &[]).code, 0);
    let mut second = b.oci(&["exec", "-d", "--pidfd-socket", at.to_str().unwrap(), &b.id, "sleep", "60"]);
    assert!(silent(&mut second).status().unwrap().success());
    let (_, second) = received(&listener);
    onggi_sys::process::pidfd_kill(second.as_fd(), 9).unwrap();
    assert_eq!(b.status(), "running");
    onggi_sys::process::pidfd_kill(init.as_fd(), 9).unwrap();
    b.until("stopped", |b| b.status() == "stopped");
}

#[test]
fn root_readiness_is_passed_on_to_the_notify_socket() {
    for verb in ["run", "start"] {
        let b = Bundle::new("echo $NOTIFY_SOCKET; sleep 60");
        b.write_config();
        let manager = b.dir.join("manager.sock");
        let socket = UnixDatagram::bind(&manager).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let bundle = b.dir.to_str().unwrap();
        let notified = |args: &[&str]| {
            let mut command = b.oci(args);
            command.env("NOTIFY_SOCKET", &manager).stderr(Stdio::null());
            command.stdout(fs::File::create(b.dir.join("out")).unwrap()).spawn().unwrap()
        };
        let mut waiting = if verb == "run" {
            notified(&["run", "-d", "-b", bundle, &b.id])
        } else {
            assert!(notified(&["create", "-b", bundle, &b.id]).wait().unwrap().success());
            let mut start = b.oci(&["start", &b.id]);
            start.env("NOTIFY_SOCKET", &manager).spawn().unwrap()
        };
        let inside = b.dir.join("state").join(&b.id).join("notify/notify.sock");
        b.until("the container's socket", |b| inside.exists() && b.output() == "/run/notify/notify.sock\n");
        assert!(waiting.try_wait().unwrap().is_none(), "{verb} waits for readiness");
        UnixDatagram::unbound().unwrap().send_to(b"STATUS=warm\nREADY=1\n", &inside).unwrap();
        let (mut text, mut fds) = ([0u8; 64], Vec::new());
        let mut next = || {
            let n = onggi_sys::unix::recv_with_fds(socket.as_fd(), &mut text, &mut fds).unwrap();
            fds.clear();
            String::from_utf8_lossy(&text[..n]).into_owned()
        };
        assert_eq!(next(), "READY=1\n");
        assert_eq!(next(), format!("MAINPID={}\n", b.pid()));
        assert_eq!(next(), "BARRIER=1");
        assert!(waiting.wait().unwrap().success());
    }
}

#[test]
fn root_an_exec_whose_pid_file_cannot_be_written_leaves_no_process() {
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let done = b.exec(&["--pid-file", "/not/there/pid"], &["sleep", "61"]);
    assert!(done.code == 255 && done.err.contains("no such file or directory"), "{}", done.err);
    assert_eq!(b.verb("ps", &[]).out.lines().count(), 2);
    let at = b.dir.join("pid");
    assert_eq!(b.exec(&["--pid-file", at.to_str().unwrap()], &["true"]).code, 0);
    assert!(fs::read_to_string(&at).unwrap().parse::<i32>().is_ok());
    assert!(!b.dir.join(".pid").exists());
}

#[test]
fn root_exec_enters_the_sub_cgroup_that_it_is_told() {
    let b = in_top_group("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let own = cgroups_of(&b.id).into_iter().find(|p| p.starts_with("/sys/fs/cgroup/memory")).expect("a memory group");
    fs::create_dir(own.join("sub")).unwrap();
    let group = |flags: &[&str]| {
        let done = b.exec(flags, &["sh", "-c", "echo up; sleep 60"]);
        (done.code, done.err)
    };
    let mut inside = b.oci(&["exec", "-d", "--cgroup", "memory:sub", &b.id, "sleep", "60"]);
    assert!(silent(&mut inside).status().unwrap().success());
    assert_eq!(fs::read_to_string(own.join("sub/cgroup.procs")).unwrap().lines().count(), 1);
    for (flag, why) in [
        ("..", "bad sub cgroup path"),
        ("nonexistent", "adding pid"),
        ("memory:nonexistent", "no such file or directory"),
        ("whaaat:/", "unknown controller"),
    ] {
        let (code, err) = group(&["--cgroup", flag]);
        assert!(code == 255 && err.contains(why), "{flag}: {err}");
    }
    assert_eq!(b.exec(&["--cgroup", "/"], &["true"]).code, 0);
    assert_eq!(b.verb("delete", &["--force"]).code, 0);
}

#[test]
fn root_exec_waits_until_its_fifo_is_opened() {
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let fifo = b.dir.join("wait");
    let fifo = fifo.to_str().unwrap();
    assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    let mut command = b.oci(&["exec", "--exec-wait-fifo", fifo, &b.id, "touch", "/tmp/ran"]);
    let mut waiting = command.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(waiting.try_wait().unwrap().is_none() && !b.root().join("tmp/ran").exists(), "it waits");
    // The end of file comes when the program runs.
    assert!(fs::read(fifo).unwrap().is_empty());
    assert!(waiting.wait().unwrap().success());
    assert!(b.root().join("tmp/ran").exists());
    for (path, why) in [("/not/there", "no such file"), ("/dev/null", "FIFO")] {
        let done = b.exec(&["--exec-wait-fifo", path], &["true"]);
        assert!(done.code == 255 && done.err.to_lowercase().contains(&why.to_lowercase()), "{path}: {}", done.err);
    }
}

/// What it holds while it waits may be unmounted by others, and shows nothing of the host.
#[test]
fn root_a_created_process_holds_no_mount_of_its_container() {
    let b = Bundle::new("true");
    assert_eq!(b.create().code, 0);
    let links = fs::read_dir(format!("/proc/{}/fd", b.pid())).unwrap();
    for link in links {
        let at = fs::read_link(link.unwrap().path()).unwrap();
        let text = at.to_string_lossy();
        let ours = at.starts_with(&b.dir) && (text.ends_with("/out") || text.ends_with("/err"));
        let known = ["/", "/proc", "/dev/null"].contains(&text.as_ref()) || text.ends_with("/exec.fifo");
        let anonymous = ["anon_inode:", "socket:", "pipe:"].iter().any(|kind| text.starts_with(kind));
        assert!(ours || known || anonymous, "{text}");
    }
    assert_eq!(b.verb("start", &[]).code, 0);
    b.until("it ends", |b| b.status() == "stopped");
    assert_eq!(b.verb("delete", &[]).code, 0);
    assert!(!b.dir.join("state").join(&b.id).exists());
}

#[test]
fn root_a_terminal_needs_somebody_to_have_it() {
    let mut b = Bundle::new("sleep 60");
    b.config["process"]["terminal"] = json!(true);
    b.write_config();
    for verb in [&["create"][..], &["run", "-d"]] {
        let done: Done = b.oci(&[verb, &["-b", b.dir.to_str().unwrap(), &b.id]].concat()).output().unwrap().into();
        assert!(done.code == 1 && done.err.contains("cannot allocate tty"), "{}", done.err);
    }
    b.config["process"]["terminal"] = json!(false);
    assert_eq!(b.run_detached(&[]).code, 0);
    assert!(b.exec(&["-t", "-d"], &["true"]).err.contains("cannot allocate tty"));
    let done = b.exec(&["-t"], &["sh", "-c", "tty; stat -c %u:%g $(tty)"]);
    assert_eq!((done.code, done.out.as_str()), (0, "/dev/pts/0\n0:5\n"), "{}", done.err);
    let done = b.exec(&["-t", "-u", "1000:100"], &["sh", "-c", "stat -c %u:%g $(tty)"]);
    assert_eq!(done.out, "1000:5\n");
}

/// The whole way of a person at a terminal: raw mode, size and its changes, input, a signal, and all as before.
#[test]
fn root_the_foreground_relays_a_terminal_and_restores_it() {
    let mut b =
        Bundle::new("stty size; read x; echo got $x; trap 'exit 9' TERM; echo armed; while :; do sleep 0.05; done");
    b.config["process"]["terminal"] = json!(true);
    b.write_config();
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let slave = onggi_sys::pty::open_peer(master.as_fd()).unwrap();
    onggi_sys::pty::set_size(slave.as_fd(), 100, 30).unwrap();
    let local = |fd: &OwnedFd| rustix::termios::tcgetattr(fd).unwrap().local_modes;
    let before = local(&slave);
    let end = || Stdio::from(slave.try_clone().unwrap());
    let mut command = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).process_group(0).spawn().unwrap();
    let mut master = fs::File::from(master);
    let mut seen = String::new();
    let mut until = |master: &mut fs::File, text: &str| {
        let mut buffer = [0u8; 256];
        while !seen.contains(text) {
            let n = master.read(&mut buffer).unwrap();
            seen += &String::from_utf8_lossy(&buffer[..n]);
        }
    };
    until(&mut master, "30 100\r\n");
    assert_ne!(local(&slave), before, "raw mode");
    master.write_all(b"hello\r").unwrap();
    until(&mut master, "got hello\r\n");
    until(&mut master, "armed\r\n");
    onggi_sys::process::kill(child.id().cast_signed(), 15).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert_eq!(local(&slave), before, "the terminal is as it was");
    assert_eq!(b.status(), "absent");
}

#[test]
fn root_pausing_what_is_deleted_at_that_moment_neither_waits_nor_claims_success_for_long() {
    let b = Bundle::new("while :; do sleep 0.01; done");
    for round in 0..30 {
        assert_eq!(b.run_detached(&[]).code, 0);
        let begun = std::time::Instant::now();
        let pause = b.oci(&["pause", &b.id]).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(250 * (round % 15)));
        let deleted = b.verb("delete", &["--force"]);
        assert_eq!(deleted.code, 0, "{}", deleted.err);
        let paused: Done = pause.wait_with_output().unwrap().into();
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "round {round}: {:?}", begun.elapsed());
        let told = ["not running", "does not exist", "pause the container"].iter().any(|t| paused.err.contains(t));
        assert!(paused.code == 0 || told, "{}", paused.err);
        assert_eq!(cgroups_of(&b.id), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn root_a_state_that_is_a_pipe_or_a_link_keeps_nobody_waiting_and_is_deleted_by_force() {
    for kind in ["mkfifo", "ln -s /etc/passwd"] {
        let b = Bundle::new("sleep 60");
        assert_eq!(b.run_detached(&[]).code, 0);
        let pid = b.pid();
        let state = b.dir.join("state").join(&b.id).join("state.json");
        let planted = Command::new("sh").args(["-c", &format!("rm {0} && {kind} {0}", state.display())]).status();
        assert!(planted.unwrap().success());
        for (verb, code) in [("state", 1), ("kill", 1), ("list", 0), ("delete --force", 0)] {
            let mut words: Vec<&str> = verb.split(' ').collect();
            words.extend((verb != "list").then_some(b.id.as_str()));
            let verb_of_ours = b.oci(&words);
            let mut bounded = Command::new("timeout");
            bounded.arg("10").arg(verb_of_ours.get_program()).args(verb_of_ours.get_args());
            let done: Done = bounded.stdin(Stdio::null()).output().unwrap().into();
            assert_eq!(done.code, code, "{kind}, {verb}: {}", done.err);
        }
        assert_eq!(b.status(), "absent");
        b.until("its processes are gone", |_| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
}
