//! `chroot`: a directory of programs of this machine, entered; beside chroot(1) and ldd(1).

use std::path::Path;

use onggi_tests::machine::sh;

use crate::Stage;

/// What a command sees of its root.
const LOOK: &str = "echo $0 $1; pwd; ls -A /bin /usr/bin; id -u; cat /etc/motd";

/// A directory with the programs that the tests use.
fn jar(stage: &Stage) -> String {
    let jar = stage.onggi.dir().join("jar").display().to_string();
    sh(&format!("mkdir -p {jar}/etc; echo welcome > {jar}/etc/motd"));
    let programs = ["--with", "sh", "--with", "ls", "--with", "id", "--with", "cat", "--with", "mkdir"];
    stage.onggi.ok(&[&["chroot", &jar, "--fill-only"], &programs[..]].concat());
    jar
}

#[test]
fn e2e_chroot_fills_a_directory_with_what_programs_need_and_runs_them_as_chroot_does() {
    let stage = Stage::new();
    let jar = jar(&stage);
    for library in sh("ldd /bin/ls | grep -o '/[^ ]*'").lines() {
        assert!(Path::new(&format!("{jar}{library}")).is_file(), "{library} is missing");
    }
    let theirs = sh(&format!("exec chroot {jar} sh -c '{LOOK}' a b"));
    let ours = stage.onggi.ok(&["chroot", &jar, "sh", "-c", LOOK, "a", "b"]);
    assert_eq!(ours, theirs.trim_end());
    let before = sh(&format!("cd {jar}; find usr lib* etc -printf '%p %i %m %s\\n' | sort"));
    stage.onggi.ok(&["chroot", &jar, "--with", "ls", "--", "ls", "/"]);
    assert_eq!(sh(&format!("cd {jar}; find usr lib* etc -printf '%p %i %m %s\\n' | sort")), before, "safe to repeat");
    sh(&format!("echo changed > {jar}/usr/bin/ls"));
    stage.onggi.ok(&["chroot", &jar, "--with", "ls", "--", "ls", "/"]);
    assert_eq!(stage.onggi.run(&["chroot", &jar, "sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(stage.onggi.run(&["chroot", &jar, "no-such-program"]).code, Some(127));
    assert_eq!(stage.onggi.run(&["chroot", &jar, "/etc/motd"]).code, Some(126));
    for (arguments, part) in [
        (&["/no/such/directory", "true"][..], "/no/such/directory"),
        (&[&jar, "--with", "no-such-program"], "no-such-program"),
        (&[&jar, "--user", "nobody-here", "sh"], "nobody-here"),
        (&[&jar, "--bind", "/no/such:/mnt", "sh"], "/no/such"),
        (&["/", "true"], "is the root already"),
    ] {
        let refused = stage.onggi.run(&[&["chroot"], arguments].concat());
        assert!(refused.code == Some(125) && refused.stderr.contains(part), "{refused}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_chroot_shows_its_own_processes_devices_and_mounts_and_cannot_be_left() {
    let stage = Stage::new();
    let jar = jar(&stage);
    let look = "echo $$; ls -d /proc/[0-9]* | while read p; do cat $p/comm; done; while read a b c d e f; do echo $e $f; done < /proc/self/mountinfo";
    let seen = stage.onggi.ok(&["chroot", &jar, "sh", "-c", look]);
    assert!(seen.starts_with("1\nsh\n"), "{seen}");
    let points: Vec<&str> = seen.lines().filter(|l| l.starts_with('/')).filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(points[..2], ["/", "/proc"], "{seen}");
    assert!(!seen.contains("onggi-e2e") || !seen.contains("/home"), "no mount of the machine is seen: {seen}");
    assert!(seen.lines().any(|l| l.starts_with("/sys ro,")), "{seen}");
    let devices = stage.onggi.ok(&["chroot", &jar, "sh", "-c", "ls /dev; echo x > /dev/null; cat /dev/null"]);
    let expected = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(devices.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    let bind = format!("{}:/mnt:ro", stage.onggi.dir().join("home").display());
    sh(&format!("echo shared > {}/home/file", stage.onggi.dir().display()));
    let script = "cat /mnt/file; id -u; id -g; true > /etc/x || echo refused; true > /mnt/x || echo refused; mkdir /dev/shm/x && echo made";
    let options = ["--read-only", "--user", "7:8", "--bind", &bind];
    let seen = stage.onggi.ok(&[&["chroot", &jar], &options[..], &["sh", "-c", script]].concat());
    assert_eq!(seen, "shared\n7\n8\nrefused\nrefused\nmade");
    let bare = stage.onggi.ok(&["chroot", &jar, "--bare", "sh", "-c", "ls /proc /dev /sys"]);
    assert_eq!(bare.split_whitespace().collect::<Vec<_>>(), ["/dev:", "/proc:", "/sys:"]);
    let hosts = stage.onggi.ok(&[
        "chroot",
        &jar,
        "--host-pids",
        "--hostname",
        "jar",
        "sh",
        "-c",
        "cat /proc/1/comm /proc/sys/kernel/hostname",
    ]);
    assert_eq!(hosts, sh("cat /proc/1/comm").trim().to_owned() + "\njar");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_chroot_keeps_directories_that_are_there_and_copies_what_links_would_lead_to() {
    let stage = Stage::new();
    let jar = stage.onggi.dir().join("jar").display().to_string();
    sh(&format!("mkdir -p {jar}/bin {jar}/lib {jar}/lib64 {jar}/usr"));
    stage.onggi.ok(&["chroot", &jar, "--with", "/bin/ls", "--", "/bin/ls", "/"]);
    assert_eq!(sh(&format!("exec chroot {jar} /bin/ls /lib64")).trim(), "ld-linux-x86-64.so.2");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_chroot_needs_no_root() {
    let stage = Stage::new();
    let jar = jar(&stage);
    sh(&format!("chmod 755 {}; chown -R 12345:12345 {jar}", stage.onggi.dir().display()));
    let script = "id -u; echo $$; ls /proc | while read p; do case $p in [0-9]*) echo $p; esac; done; true > /new && ls /new; true > /sys/x || echo refused";
    let onggi = stage.onggi.command(&["chroot", &jar, "sh", "-c", script]);
    let words = [onggi.get_program()].into_iter().chain(onggi.get_args());
    let quote = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
    let line = words.map(quote).collect::<Vec<_>>().join(" ");
    let ran = sh(&format!("setpriv --reuid 12345 --regid 12345 --clear-groups {line}"));
    let (first, rest) = ran.split_at(4);
    assert_eq!(first, "0\n1\n");
    assert!(rest.ends_with("/new\nrefused\n"), "{ran}");
    assert_eq!(sh(&format!("stat -c %u {jar}/new")).trim(), "12345");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_chroot_explains_itself_and_its_script_does_the_same() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().display().to_string();
    let (ours, theirs) = (format!("{dir}/ours"), format!("{dir}/theirs"));
    sh(&format!("mkdir {ours} {theirs}"));
    let look = "echo $$ $1; pwd; id; ls /dev / /mnt; while read a b c d e f; do echo $e ${f%% *}; done < /proc/self/mountinfo; true > /x || echo refused";
    let bind = format!("{dir}/home:/mnt:ro");
    let options = [
        "--with",
        "sh",
        "--with",
        "id",
        "--with",
        "ls",
        "--read-only",
        "--bind",
        &bind,
        "--user",
        "7:8",
        "--hostname",
        "jar",
    ];
    let run = |jar: &str, how: &[&str]| {
        stage.onggi.ok(&[&["chroot", jar], &options[..], how, &["--", "sh", "-c", look, "sh", "it's"]].concat())
    };
    let words = run(&ours, &["--explain"]);
    for part in ["copy /usr/bin/ls", "pivot_root(2)", "mount(2) a new proc", "setresuid(2) 7", "execve(2): sh -c"] {
        assert!(words.contains(part), "{part:?} is missing in\n{words}");
    }
    assert_eq!(sh(&format!("ls -A {ours}")), "", "nothing is done");
    let json: serde_json::Value = serde_json::from_str(&run(&ours, &["--explain=json"])).expect("it is JSON");
    assert!(json["ops"].as_array().is_some_and(|ops| ops.iter().any(|op| op["step"] == "enter")), "{json}");
    let script = run(&theirs, &["--explain=sh"]);
    let by_hand = sh(&script);
    let real = run(&ours, &[]);
    let normal = |text: &str| text.replace(&ours, "X").replace(&theirs, "X");
    assert_eq!(normal(real.trim()), normal(by_hand.trim()), "{script}");
    let tree = |jar: &str| sh(&format!("cd {jar}; find . -printf '%p %y %m %l\\n' | sort"));
    assert_eq!(tree(&ours), tree(&theirs));
    stage.onggi.assert_nothing_left();
}
