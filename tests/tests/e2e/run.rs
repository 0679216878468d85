//! `run` and its options, from inside the container.

use std::{
    fs,
    io::{Read, Write},
    process::Stdio,
};

use onggi_tests::{assert_refused, eventually};

use crate::Stage;

#[test]
fn e2e_exit_codes_are_the_commands_own() {
    let stage = Stage::new();
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
        // PID 1 does not die of its own signals, so the shell has a child do it.
        let script = format!("sh -c '{script}'; exit $?");
        let ran = stage.onggi.run(&["run", "--rm", "--network", "none", &stage.busybox, "sh", "-c", &script]);
        assert_eq!(ran.code, Some(code), "{ran}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_output_and_input_pass_through_byte_for_byte() {
    let stage = Stage::new();
    let ran = stage.onggi.run(&["run", "--rm", &stage.busybox, "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((ran.stdout.as_str(), ran.code), ("out\n", Some(0)), "{ran}");
    assert!(ran.stderr.ends_with("err\n"), "{ran}");

    let mut command = stage.onggi.command(&["run", "-i", "--rm", &stage.busybox, "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start onggi");
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let mut received = Vec::new();
    child.stdout.take().expect("stdout is a pipe").read_to_end(&mut received).expect("read the output");
    writer.join().expect("the writer does not panic").expect("write the input");
    assert!(child.wait().expect("wait").success());
    assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_environment_directory_user_and_host_name_are_as_asked() {
    let stage = Stage::new();
    let options = ["-e", "A=b c", "-w", "/tmp", "-u", "user", "--hostname", "jar"];
    let text = stage.script(&options, "echo \"$A|$PWD|$(id -u):$(id -g)|$(id -G)|$(hostname)|$HOME\"");
    assert_eq!(text, "b c|/tmp|1000:1000|1000 2000|jar|/home/user");
    assert_eq!(stage.script(&["-u", "5:6"], "id -u; id -g; id -G"), "5\n6\n6");
    assert_eq!(stage.script(&[], "cat /etc/hostname").len(), 12, "the host name is the short id");
    assert_eq!(stage.script(&["-w", "/made/by/run"], "pwd"), "/made/by/run");
    assert_eq!(stage.script(&["--entrypoint", "echo"], "x"), "sh -c x", "the entrypoint gets the command");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_limits_are_those_of_the_cgroup() {
    let stage = Stage::new();
    let args = ["run", "-d", "--network", "none", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50"];
    let id = stage.onggi.ok(&[&args[..], &[&stage.busybox, "sleep", "100"]].concat());
    let read = |file: &str| {
        let name = file.rsplit('/').next().expect("a path has a last part");
        let found = onggi_tests::machine::sh(&format!("find /sys/fs/cgroup -path '*{id}*' -name {name} | head -n 1"));
        fs::read_to_string(found.trim()).unwrap_or_else(|e| panic!("read {file} of the container: {e}"))
    };
    let v2 = fs::exists("/sys/fs/cgroup/cgroup.controllers").expect("the cgroup filesystem");
    let (memory, cpu) = if v2 { ("memory.max", "cpu.max") } else { ("memory.limit_in_bytes", "cpu.cfs_quota_us") };
    assert_eq!(read(memory).trim(), "67108864");
    assert!(read(cpu).starts_with("50000"), "{}", read(cpu));
    assert_eq!(read("pids.max").trim(), "50");
    stage.onggi.ok(&["rm", "-f", &id]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_container_out_of_memory_is_killed_and_says_so() {
    let stage = Stage::new();
    let hog = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo survived";
    let ran =
        stage.onggi.run(&["run", "--name", "hog", "--network", "none", "-m", "16m", &stage.busybox, "sh", "-c", hog]);
    assert_ne!(ran.code, Some(0), "{ran}");
    assert!(!ran.stdout.contains("survived"), "{ran}");
    assert_eq!(stage.onggi.ok(&["inspect", "--format", "{{.State.OOMKilled}}", "hog"]), "true");
    stage.onggi.ok(&["rm", "hog"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_read_only_root_refuses_writes_and_volumes_still_take_them() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().join("volume");
    fs::create_dir(&dir).expect("make the volume");
    let volume = format!("{}:/data", dir.display());
    let text = stage.script(&["--read-only", "-v", &volume], "touch /x 2>&1; echo hello > /data/f; cat /data/f");
    assert!(text.contains("Read-only file system") && text.ends_with("hello"), "{text}");
    assert_eq!(fs::read_to_string(dir.join("f")).expect("the file is on the host"), "hello\n");
    let volume = format!("{}:/data:ro", dir.display());
    let text = stage.script(&["-v", &volume], "touch /data/g 2>&1; cat /data/f");
    assert!(text.contains("Read-only file system") && text.ends_with("hello"), "{text}");
    let file = format!("{}:/etc/one-file", dir.join("f").display());
    assert_eq!(stage.script(&["-v", &file], "cat /etc/one-file"), "hello");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_container_writes_only_to_its_own_layer() {
    let stage = Stage::new();
    let text = stage.script(
        &[],
        "cat /srv/layer; echo changed > /srv/layer; rm -r /root; cat /srv/layer; ls / | grep -c root; true",
    );
    assert!(text.starts_with("second layer\nchanged\n0"), "{text}");
    assert_eq!(stage.script(&[], "cat /srv/layer; ls -d /root"), "second layer\n/root");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_namespaces_are_the_containers_own() {
    let stage = Stage::new();
    let text = stage.script(&[], "for n in pid net mnt uts ipc cgroup; do readlink /proc/self/ns/$n; done");
    for line in text.lines() {
        let kind = line.split(':').next().expect("a link names its kind");
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).expect("read a namespace link");
        assert_ne!(line, host.to_string_lossy(), "the {kind} namespace is the host's");
    }
    assert_eq!(text.lines().count(), 6, "{text}");
    let processes = stage.script(&[], "ls -d /proc/[0-9]*/ | wc -l; echo $$");
    assert_eq!(processes.lines().last(), Some("1"));
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_init_reaps_orphans_and_forwards_signals() {
    let stage = Stage::new();
    let id = stage.onggi.ok(&[
        "run",
        "-d",
        "--init",
        "--network",
        "none",
        &stage.busybox,
        "sh",
        "-c",
        "trap 'echo bye; exit 7' TERM; (sleep 0.1 & exec true) ; echo up; while :; do sleep 0.1; done",
    ]);
    eventually("the script is up", || stage.onggi.ok(&["logs", &id]).contains("up").then_some(()));
    let zombies = "sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    assert_eq!(stage.onggi.ok(&["exec", &id, "sh", "-c", zombies]), "0");
    assert_ne!(stage.onggi.ok(&["exec", &id, "cat", "/proc/1/comm"]), "sh", "PID 1 is the init");
    stage.onggi.ok(&["stop", &id]);
    assert_eq!(stage.onggi.ok(&["wait", &id]), "7");
    stage.onggi.ok(&["rm", &id]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_terminal_is_a_terminal() {
    let stage = Stage::new();
    let line = format!(
        "{} --root {} --runroot {} run --rm -i -t --network none {} sh -c 'tty; sleep 0.5; stty size; test -t 1 && echo yes'",
        stage.onggi.program().display(),
        stage.onggi.root().display(),
        stage.onggi.runroot().display(),
        stage.busybox
    );
    // `script` gives the command a terminal of its own, as a user's shell has.
    let text = onggi_tests::machine::sh(&format!(
        "stty_line=\"{line}\"; script -qec \"stty rows 33 cols 77; $stty_line\" /dev/null < /dev/null"
    ));
    assert!(text.contains("/dev/pts/0"), "{text}");
    assert!(text.contains("33 77\r") && text.contains("yes\r"), "{text}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_host_view_shows_the_machine_and_keeps_its_writes() {
    let stage = Stage::new();
    let script =
        "cat /etc/debian_version; echo mine > /etc/onggi-e2e; cat /etc/onggi-e2e; rm -rf /usr/share/doc; echo gone";
    let text = stage.onggi.ok(&["run", "--rm", "--network", "none", "host:", "sh", "-c", script]);
    let version = fs::read_to_string("/etc/debian_version").expect("read the host's version");
    assert_eq!(text, format!("{}\nmine\ngone", version.trim_end()));
    assert!(!std::path::Path::new("/etc/onggi-e2e").exists());
    assert!(std::path::Path::new("/usr/share/doc").is_dir());
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_directory_can_be_a_root_filesystem_and_stays_as_it_is() {
    let stage = Stage::new();
    let rootfs = stage.onggi.dir().join("rootfs");
    fs::create_dir_all(rootfs.join("bin")).expect("make the root filesystem");
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("copy busybox");
    let image = format!("rootfs:{}", rootfs.display());
    let text = stage.onggi.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        &image,
        "/bin/busybox",
        "sh",
        "-c",
        "echo x > /f; /bin/busybox ls /f",
    ]);
    assert_eq!(text, "/f");
    let names: Vec<_> = fs::read_dir(&rootfs).expect("list").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["bin"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_name_is_free_again_after_rm() {
    let stage = Stage::new();
    for _ in 0..2 {
        stage.onggi.ok(&["run", "-d", "--name", "web", "--network", "none", &stage.busybox, "true"]);
        let again = stage.onggi.run(&["run", "-d", "--name", "web", "--network", "none", &stage.busybox, "true"]);
        assert_refused(&again, 125, &["web"]);
        stage.onggi.ok(&["rm", "-f", "web"]);
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_only_what_goes_with_its_container_is_never_synced() {
    let stage = Stage::new();
    let root = "grep ' / overlay' /proc/mounts";
    for more in [&["--network", "none"][..], &["--network", "none", "--userns", "auto"]] {
        for (rm, volatile) in [(&["--rm"][..], true), (&[], false)] {
            let options = stage.onggi.ok(&[&["run"], rm, more, &[&stage.busybox, "sh", "-c", root]].concat());
            assert_eq!(options.contains("volatile"), volatile, "{options}");
        }
    }
    // The mark that a volatile mount leaves does not hinder the next one of the same container.
    let script = "echo started >> /kept; exec sleep 1000";
    stage.onggi.ok(&["run", "-d", "--rm", "--name", "again", "--network", "none", &stage.busybox, "sh", "-c", script]);
    stage.onggi.ok(&["restart", "-t", "0", "again"]);
    let kept = || stage.onggi.run(&["exec", "again", "cat", "/kept"]).stdout;
    eventually("the second start is noted", || (kept() == "started\nstarted\n").then_some(()));
    stage.onggi.ok(&["stop", "-t", "0", "again"]);
    assert_eq!(stage.onggi.ok(&["ps", "-a", "--format", "{{.Names}}"]).lines().filter(|n| *n == "again").count(), 0);
    for id in stage.onggi.ok(&["ps", "-aq"]).lines() {
        stage.onggi.ok(&["rm", id]);
    }
    stage.onggi.assert_nothing_left();
}
