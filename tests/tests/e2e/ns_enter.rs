//! `ns enter` beside nsenter(1), and what confines the processes that are entered.

use onggi_tests::machine::sh;

use crate::Stage;

/// Who and where a command is.
const LOOK: &str = "pwd; hostname; id -u; id -g; for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; \
                    cat /proc/1/comm; true";

/// A process with namespaces of its own that are no container's, until the test ends.
struct Other {
    pid: String,
}

impl Other {
    fn start(stage: &Stage) -> Self {
        let jar = stage.onggi.dir().join("jar").display().to_string();
        let script = format!(
            "mkdir -p {jar}/bin {jar}/proc {jar}/deep; cp /bin/busybox {jar}/bin/; \
             for a in sh cat hostname id pwd readlink; do ln -s busybox {jar}/bin/$a; done; \
             cd {jar}/deep; FROM=there unshare --net --uts --ipc --mount --pid --fork sh -c \
             'hostname other; mount -t proc proc {jar}/proc; cd {jar}; exec chroot {jar} /bin/busybox sleep 300' >/dev/null 2>&1 & \
             for i in $(seq 100); do P=$(pgrep -P $! -x busybox) && break; sleep 0.05; done; echo $P"
        );
        let pid = sh(&script).trim().to_owned();
        assert!(pid.parse::<i32>().is_ok(), "no process: {pid:?}");
        Self { pid }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // As number 1 of its namespace it is killed with everything in there.
        let _ = sh(&format!("kill -9 {}", self.pid));
    }
}

#[test]
fn e2e_ns_enter_takes_files_roots_and_directories_as_nsenter_does() {
    let stage = Stage::new();
    let other = Other::start(&stage);
    let pid = &other.pid;
    let dir = stage.onggi.dir().display().to_string();
    sh(&format!("for n in net uts; do touch {dir}/$n; mount --bind /proc/{pid}/ns/$n {dir}/$n; done"));
    let (net, uts) = (format!("--net={dir}/net"), format!("--uts={dir}/uts"));
    let target = format!("--target={pid}");
    let (root, wd) = (format!("{dir}/jar"), format!("{dir}/jar/deep"));
    let cases: [(&[&str], &[&str]); 9] = [
        (&[&net, &uts], &[&net, &uts]),
        (&[&target, &uts], &[&target, &uts]),
        (&[&target, "--net", "--ipc", "--pid"], &[&target, "--net", "--ipc", "--pid"]),
        (&[&target, "--net", "--all"], &[&target, "--net", "--uts", "--ipc", "--mount", "--pid", "--cgroup"]),
        (&[&target, "--mount", "-p", "--new-root", "--wd"], &[&target, "--mount", "-p", "--root", "--wd"]),
        (
            &[&target, "-u", &format!("--new-root={root}")],
            &[&target, "-u", &format!("--root={root}"), &format!("--wd={root}")],
        ),
        (&[&target, "-u", &format!("--wd={wd}")], &[&target, "-u", &format!("--wd={wd}")]),
        (&[&target, "-u", "--new-root", "--wdns", "/bin"], &[&target, "-u", "--root", "--wdns=/bin"]),
        (&[&target, "-n", "-S", "7", "-G", "8"], &[&target, "-n", "-S", "7", "-G", "8"]),
    ];
    for (ours, theirs) in cases {
        let theirs = sh(&format!("nsenter {} -- sh -c '{LOOK}'", theirs.join(" ")));
        let seen = stage.onggi.ok(&[&["ns", "enter"], ours, &["--", "sh", "-c", LOOK]].concat());
        assert_eq!(seen, theirs.trim_end(), "{ours:?}");
        let script = stage.onggi.ok(&[&["ns", "enter", "--explain=sh"], ours, &["--", "sh", "-c", LOOK]].concat());
        assert_eq!(sh(&script).trim_end(), seen, "{script}");
    }
    let own = sh(&format!("tr '\\0' '\\n' < /proc/{pid}/environ | grep FROM"));
    let look = ["--env", "--", "sh", "-c", "echo FROM=$FROM"];
    assert_eq!(stage.onggi.ok(&[&["ns", "enter", &target, "-u"], &look[..]].concat()), own.trim());
    let script = stage.onggi.ok(&[&["ns", "enter", "--explain=sh", &target, "-u"], &look[..]].concat());
    assert_eq!(sh(&script), own, "{script}");
    // Only children are in a pid namespace.
    let first = |how: &[&str]| {
        stage.onggi.ok(&[&["ns", "enter", &target, "-p"], how, &["--", "readlink", "/proc/self/ns/pid"]].concat())
    };
    assert_eq!(
        (first(&["-F"]) == first(&[]), first(&["-F"])),
        (false, sh("readlink /proc/self/ns/pid").trim().to_owned())
    );
    drop(other);
    sh(&format!("umount {dir}/net {dir}/uts"));
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_ns_enter_explains_itself_and_says_what_is_missing() {
    let stage = Stage::new();
    let options = ["run", "-d", "--network", "none", "--hostname", "jar", "--name", "box"];
    stage.onggi.ok(&[&options[..], &[&stage.busybox, "sleep", "300"]].concat());
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    let words = stage.onggi.ok(&["ns", "enter", "--explain", "--new-root", "-S", "7", "box", "hostname"]);
    let expected = [
        format!("setns(2) of a pidfd of process {pid}: cgroup, ipc, uts, net, pid, mnt"),
        format!("fchdir(2) and chroot(2) to /proc/{pid}/root, as it was found before"),
        format!("fchdir(2) to /proc/{pid}/root, as it was found before"),
        "setresuid(2) 7".to_owned(),
        "fork: only a child is in the pid and time namespaces".to_owned(),
        "execve(2): hostname".to_owned(),
    ];
    assert_eq!(words.lines().collect::<Vec<_>>(), expected);
    let json: serde_json::Value =
        serde_json::from_str(&stage.onggi.ok(&["ns", "enter", "--explain=json", "-t", "uts", "box", "id"]))
            .expect("it is JSON");
    assert_eq!((&json["ops"][0]["op"], &json["ops"][0]["kinds"][0]), (&"join".into(), &"uts".into()));
    let script = stage.onggi.ok(&["ns", "enter", "--explain=sh", "box", "hostname"]);
    assert_eq!(sh(&script).trim(), "jar", "{script}");
    let net = format!("--uts=/proc/{pid}/ns/net");
    for (arguments, part) in [
        (&["--env", "--net=/proc/self/ns/net", "id"][..], "no process is named"),
        (&["--net"], "no process is named"),
        (&[&net[..], "id"], "keeps a namespace of kind net, none of kind uts"),
        (&["--net=/etc/passwd", "id"], "/etc/passwd is no namespace"),
        (&["--new-root=/etc/passwd", "box", "id"], "/etc/passwd: not a directory"),
        (&["--wd=/no/such", "box", "id"], "/no/such: no such file or directory"),
        (&["--workdir", "/no/such", "box", "id"], "go to /no/such"),
        (&["--follow-context", "box", "id"], "neither AppArmor nor SELinux"),
        (&["-t", "net", "/proc/self/ns/net", "id"], "keeps one namespace"),
    ] {
        let refused = stage.onggi.run(&[&["ns", "enter"], arguments].concat());
        assert!(refused.code != Some(0), "{refused}");
        assert!(refused.stderr.to_lowercase().contains(&part.to_lowercase()), "{part:?}: {refused}");
    }
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_caps_show_has_every_process_of_a_container_and_what_confines_it() {
    let stage = Stage::new();
    let options = [
        "run",
        "-d",
        "--network",
        "none",
        "--cap-drop",
        "net_raw",
        "--security-opt",
        "no-new-privileges",
        "--name",
        "box",
    ];
    stage.onggi.ok(&[&options[..], &[&stage.busybox, "sh", "-c", "sleep 301 & exec sleep 302"]].concat());
    stage.onggi.ok(&["exec", "-d", "-u", "7", "box", "sleep", "303"]);
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    let field =
        |pid: &str, name: &str| sh(&format!("sed -n 's/^{name}:[[:space:]]*//p' /proc/{pid}/status")).trim().to_owned();
    let shown = stage.onggi.ok(&["caps", "show", "box"]);
    for part in ["seccomp      filter, 1 filter", "securebits   unknown", "no_new_privs", "sleep 301", "sleep 303"] {
        assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
    }
    let template = "{{.Pid}} {{.Effective}} {{.Permitted}} {{.Inheritable}} {{.Ambient}} {{.Bounding}} {{.NoNewPrivs}} {{.Filters}}";
    let rows = stage.onggi.ok(&["caps", "show", "--processes", "--format", template, "box"]);
    assert_eq!(rows.lines().count(), 3, "{rows}");
    for row in rows.lines() {
        let one = row.split(' ').next().unwrap_or_default();
        let names = ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd", "NoNewPrivs", "Seccomp_filters"];
        let told = names.map(|name| field(one, name)).join(" ");
        assert_eq!(row, format!("{one} {told}"));
    }
    assert!(rows.starts_with(&format!("{pid} ")), "the first process is the first: {rows}");
    // Threads may differ from their process.
    let python = "import ctypes, threading, time; libc = ctypes.CDLL(None)\n\
                  def f():\n libc.prctl(38, 1, 0, 0, 0); print(threading.get_native_id(), flush=True); time.sleep(300)\n\
                  threading.Thread(target=f, daemon=True).start(); time.sleep(300)";
    let out = stage.onggi.dir().join("tid").display().to_string();
    let program = stage.onggi.dir().join("threads.py");
    std::fs::write(&program, python).expect("write a program");
    let started = sh(&format!(
        "python3 {} > {out} 2>&1 & echo $!; for i in $(seq 100); do test -s {out} && break; sleep 0.05; done",
        program.display()
    ));
    let tid = sh(&format!("cat {out}"));
    let shown = stage.onggi.ok(&["caps", "show", started.trim()]);
    sh(&format!("kill {}", started.trim()));
    assert!(shown.contains(&format!("threads {} differ:", tid.trim())), "{tid} {shown}");
    assert!(shown.contains("no_new_privs 1"), "{shown}");
    assert!(
        stage
            .onggi
            .ok(&["caps", "run", "--", stage.onggi.program().to_str().expect("a path"), "caps", "show"])
            .contains("securebits   0x00")
    );
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_caps_audit_explains_itself_and_its_script_listens() {
    let stage = Stage::new();
    let options = ["run", "-d", "--network", "none", "--name", "box"];
    stage.onggi.ok(&[
        &options[..],
        &[&stage.busybox, "sh", "-c", "while :; do chown 1:1 /tmp; chown 0:0 /tmp; sleep 0.1; done"],
    ]
    .concat());
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    let instances = "mount -t tracefs x /mnt; ls /mnt/instances | grep -c by-hand; umount /mnt";
    let words = stage.onggi.ok(&["caps", "audit", "--explain", "--for", "1", "box"]);
    for part in ["mkdir(2) in instances of tracefs", &format!("write {pid}"), "for 1 s", "rmdir(2)"] {
        assert!(words.contains(part), "{part:?} is missing in\n{words}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&stage.onggi.ok(&["caps", "audit", "--explain=json", "box", "id"])).expect("it is JSON");
    assert_eq!(json["ops"][6]["op"], "execute");
    let script = stage.onggi.ok(&["caps", "audit", "--explain=sh", "--for", "1", "box"]);
    // Numbers in a script are those of the first pid namespace.
    if sh("readlink /proc/self/ns/pid").trim() == "pid:[4026531836]" {
        let told = sh(&format!("unshare -m sh -c {}", quoted(&script)));
        assert!(told.contains("cap_capable:") && told.contains("cap 0, ret 0"), "{told}");
    }
    assert_eq!(sh(&format!("unshare -m sh -c '{instances} || true'")).trim(), "0", "nothing is left");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_without_proc_it_is_said_that_there_is_none() {
    let stage = Stage::new();
    let hidden = |arguments: &[&str]| {
        let command = stage.onggi.command(arguments);
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let line = words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ");
        sh(&format!("unshare -m sh -c {}", quoted(&format!("mount -t tmpfs none /proc; {line} 2>&1; echo code $?"))))
    };
    let file = format!("--uts={}/uts", stage.onggi.dir().display());
    for arguments in [&["caps", "show"][..], &["ns", "inspect", "self"], &["ns", "ls"], &["ns", "run", &file, "true"]] {
        let said = hidden(arguments);
        assert!(said.contains("mount -t proc proc /proc") && said.ends_with("code 1\n"), "{arguments:?}: {said}");
    }
    stage.onggi.assert_nothing_left();
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
