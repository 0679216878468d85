//! `ns` and `caps`: what the kernel tells of processes and containers, beside the tools that people know.

use onggi_tests::machine::sh;

use crate::Stage;

/// Lines in an order of their own.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines
}

/// A container that waits.
fn start(stage: &Stage, name: &str) {
    let options = ["run", "-d", "--network", "none", "--hostname", "jar", "--name", name];
    stage.onggi.ok(&[&options[..], &[&stage.busybox, "sleep", "300"]].concat());
}

#[test]
fn e2e_namespaces_are_listed_as_lsns_does_with_their_containers() {
    let stage = Stage::new();
    start(&stage, "box");
    let columns = "{{.Inode}} {{.Type}} {{.Processes}} {{.Pid}}";
    let ours = stage.onggi.ok(&["ns", "ls", "--format", columns]);
    assert_eq!(sorted(&ours), sorted(&sh("exec lsns --noheadings --output NS,TYPE,NPROCS,PID")));
    let nets = stage.onggi.ok(&["ns", "ls", "-t", "net", "--format", "{{.Type}} {{.Container}}"]);
    assert_eq!(sorted(&nets), ["net", "net box"]);
    let own = stage.onggi.ok(&["ns", "ls", "--process", "box", "--format", "{{.Type}}={{.Container}}"]);
    assert_eq!(sorted(&own), ["cgroup=box", "ipc=box", "mnt=box", "net=box", "pid=box", "time=", "user=", "uts=box"]);
    let tree = stage.onggi.ok(&["ns", "ls", "--tree", "-t", "uts"]);
    let lines: Vec<&str> = tree.lines().collect();
    assert!(lines[0].starts_with("user ") && lines[1].starts_with("  uts "), "{tree}");
    sh("ip netns add kept");
    let kept = stage.onggi.ok(&["ns", "ls", "-t", "net", "--format", "{{.File}} {{.Processes}}"]);
    assert!(kept.lines().any(|line| line == "/run/netns/kept 0"), "{kept}");
    assert_eq!(stage.onggi.ok(&["ns", "enter", "/run/netns/kept", "ls", "/sys/class/net"]).trim(), links_of("kept"));
    sh("ip netns del kept; umount /run/netns");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

/// sysfs shows the devices of the network namespace in which it was mounted, for nsenter(1) too.
fn links_of(name: &str) -> String {
    sh(&format!("nsenter --net=/run/netns/{name} ls /sys/class/net")).trim().to_owned()
}

#[test]
fn e2e_namespaces_of_a_container_are_compared_and_entered() {
    let stage = Stage::new();
    start(&stage, "box");
    let shared = stage.onggi.ok(&["ns", "diff", "box", "--format", "{{.Type}}={{.Shared}}"]);
    assert_eq!(
        sorted(&shared),
        ["cgroup=no", "ipc=no", "mnt=no", "net=no", "pid=no", "time=yes", "user=yes", "uts=no"]
    );
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    let inodes = stage.onggi.ok(&["ns", "inspect", &pid, "--format", "{{.Type}}:[{{.Inode}}]"]);
    let links = sh(&format!("for f in user cgroup ipc uts net pid time mnt; do readlink /proc/{pid}/ns/$f; done"));
    assert_eq!(sorted(&inodes), sorted(&links));
    assert_eq!(stage.onggi.ok(&["ns", "enter", "box", "hostname"]), "jar");
    assert_eq!(stage.onggi.ok(&["ns", "enter", "-t", "uts", &pid, "hostname"]), "jar");
    let inside =
        stage.onggi.ok(&["ns", "enter", "--workdir", "/etc", "box", "sh", "-c", "pwd; readlink /proc/1/exe; ls /proc"]);
    assert!(inside.starts_with("/etc\n/bin/") && !inside.lines().any(|line| line == pid), "{inside}");
    assert_eq!(stage.onggi.run(&["ns", "enter", "box", "sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(stage.onggi.run(&["ns", "enter", "box", "sh", "-c", "kill -9 $$"]).code, Some(137));
    assert_eq!(stage.onggi.run(&["ns", "enter", "box", "no-such-program"]).code, Some(127));
    for (arguments, part) in [
        (["ns", "enter", "/etc/passwd", "id"], "/etc/passwd is no namespace"),
        (["ns", "enter", "ghost", "id"], "ghost"),
        (["ns", "diff", "999999", "self"], "there is no process 999999"),
        (["ns", "ls", "-t", "nets"], "expected cgroup, ipc, mnt, net, pid, time, user or uts"),
    ] {
        let refused = stage.onggi.run(&arguments);
        assert!(refused.code != Some(0) && refused.stderr.contains(part), "{refused}");
    }
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_capabilities_are_decoded_as_libcap_does() {
    let stage = Stage::new();
    let names = |text: &str| sorted(&text.trim().replace(',', "\n"));
    for mask in ["0", "1", "00000000a80425fb", "000001ffffffffff", "20000002000"] {
        let ours = stage.onggi.ok(&["caps", "decode", mask, "--format", "{{.Name}}"]);
        let theirs = sh(&format!("capsh --decode={mask}"));
        let theirs = theirs.trim().split_once('=').map(|(_, names)| names).unwrap_or_default();
        assert_eq!(names(&ours), names(theirs), "{mask}");
    }
    let program = stage.onggi.dir().join("program");
    let path = program.display().to_string();
    sh(&format!("cp /bin/busybox {path}"));
    assert_eq!(stage.onggi.ok(&["caps", "show", &path]), format!("{path}: no capabilities"));
    sh(&format!("setcap cap_net_raw,cap_net_bind_service=ep {path}"));
    let shown = stage.onggi.ok(&["caps", "show", &path, "--format", "{{.Name}} {{.Sets}}"]);
    assert_eq!(shown, "cap_net_bind_service effective,permitted\ncap_net_raw effective,permitted");
    sh(&format!("setcap cap_chown=i {path}"));
    let shown = stage.onggi.ok(&["caps", "show", &path, "--format", "{{.Name}} {{.Sets}}"]);
    assert_eq!(shown, "cap_chown inheritable");
    start(&stage, "box");
    let shown = stage.onggi.ok(&["caps", "show", "box"]);
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
    let effective = sh(&format!("sed -n 's/^CapEff:[[:space:]]*//p' /proc/{pid}/status"));
    assert!(shown.contains(&format!("effective    {effective}")), "{shown}");
    assert!(shown.contains("listen on ports below 1024") && !shown.contains("cap_sys_admin"), "{shown}");
    let bad = stage.onggi.run(&["caps", "decode", "xyz"]);
    assert!(bad.code == Some(1) && bad.stderr.contains("hexadecimal"), "{bad}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

/// What a command sees of its namespaces; inode numbers differ from run to run.
const LOOK: &str = "readlink /proc/self/ns/* | cut -d: -f1; hostname; ls /sys/class/net; if [ $$ = 1 ]; then cat /proc/1/comm; fi; \
                    cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id -u; pwd; cut -d' ' -f1 /proc/uptime | wc -l; \
                    grep -c . /proc/self/timens_offsets; cat /proc/self/timens_offsets; grep -E 'Cap(Inh|Eff|Amb)' /proc/self/status";

#[test]
fn e2e_ns_run_does_what_unshare_does() {
    let stage = Stage::new();
    let flags: [&[&str]; 12] = [
        &["--uts", "--ipc", "--net"],
        &["--pid", "--fork", "--mount-proc"],
        &["--map-root-user"],
        &["--map-current-user", "--mount"],
        &["--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc"],
        &["--time", "--fork", "--boottime", "100000", "--monotonic", "50"],
        &["--cgroup", "--fork", "--kill-child"],
        &["--mount", "--propagation", "slave", "-R", "/", "--wd", "/usr"],
        &["--mount", "--root", "/", "--wd", "/usr"],
        &["--map-user=7", "--map-group=8", "--net"],
        &["--map-user=0", "--setgroups", "deny"],
        &["--map-user=7", "--keep-caps"],
    ];
    for flags in flags {
        let theirs = sh(&format!("exec unshare {} sh -c '{}'", flags.join(" "), LOOK.replace('\'', "'\\''")));
        let ours = stage.onggi.ok(&[&["ns", "run"], flags, &["sh", "-c", LOOK]].concat());
        assert_eq!(ours.trim_end(), theirs.trim_end(), "{flags:?}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_ns_run_explains_itself_and_its_script_does_the_same() {
    let stage = Stage::new();
    let own = |link: &str| sh(&format!("readlink /proc/self/ns/{link}"));
    let look = "hostname; readlink /proc/self/ns/uts; readlink /proc/self/ns/net; echo $$";
    let options = ["--pid", "--mount-proc", "--net", "--hostname", "jar"];
    let run = |how: &[&str]| stage.onggi.ok(&[&["ns", "run"], how, &options, &["sh", "-c", look]].concat());
    let script = run(&["--explain=sh"]);
    for text in [run(&[]), sh(&script)] {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[3]), ("jar", "1"), "{script}");
        assert!(lines[1] != own("uts").trim() && lines[2] != own("net").trim(), "{script}");
    }
    let words = run(&["--explain"]);
    for part in
        ["unshare(2): new namespaces", "fork", "sethostname(2): \"jar\"", "new proc on /proc", "execve(2): sh -c"]
    {
        assert!(words.contains(part), "{part:?} is missing in\n{words}");
    }
    let json: serde_json::Value = serde_json::from_str(&run(&["--explain=json"])).expect("it is JSON");
    assert_eq!((&json["ops"][0]["op"], &json["ops"][1]["op"]), (&"unshare".into(), &"fork".into()));
    let codes = [("exit 5", 5), ("kill -TERM $$", 143)];
    for (script, code) in codes {
        assert_eq!(stage.onggi.run(&["ns", "run", "--fork", "sh", "-c", script]).code, Some(code), "{script}");
    }
    assert_eq!(stage.onggi.run(&["ns", "run", "--net", "no-such-program"]).code, Some(127));
    for (arguments, part) in [
        (&["-R", "/no/such/directory"][..], "/no/such/directory"),
        (&["--monotonic", "99999999999999"], "/proc/self/timens_offsets"),
        (&["--propagation", "sideways"], "sideways"),
        (&["-r", "-c"], "cannot be used with"),
    ] {
        let refused = stage.onggi.run(&[&["ns", "run"], arguments, &["true"]].concat());
        assert!(refused.code != Some(0) && refused.stderr.contains(part), "{refused}");
    }
    stage.onggi.assert_nothing_left();
}

/// A command as a line for sh(1), of words without apostrophes.
fn line_of(command: &std::process::Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

#[test]
fn e2e_ns_run_needs_no_root() {
    let stage = Stage::new();
    let look = ["ns", "run", "-r", "-p", "--mount-proc", "sh", "-c", "id -u; echo $$; whoami"];
    let line = line_of(&stage.onggi.command(&look));
    let ran = sh(&format!("setpriv --reuid 12345 --regid 12345 --clear-groups {line}"));
    assert_eq!(ran, "0\n1\nroot\n");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_ns_run_keeps_namespaces_by_files_as_unshare_does() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().display().to_string();
    sh(&format!("mount --bind {dir} {dir}; mount --make-private {dir}"));
    let uts = format!("{dir}/uts");
    let option = format!("--uts={uts}");
    for name in ["first", "second"] {
        stage.onggi.ok(&["ns", "run", &option, "hostname", name]);
        assert_eq!(sh(&format!("nsenter --uts={uts} hostname")).trim(), name);
        assert_eq!(stage.onggi.ok(&["ns", "enter", &uts, "hostname"]), name);
    }
    let all = ["net", "ipc", "pid", "mount"].map(|kind| format!("--{kind}={dir}/{kind}"));
    let options: Vec<&str> = all.iter().map(String::as_str).collect();
    let inside = stage.onggi.ok(&[
        &["ns", "run"],
        &options[..],
        &["sh", "-c", "readlink /proc/self/ns/net /proc/self/ns/ipc; mount -t tmpfs x /mnt; echo kept > /mnt/x"],
    ]
    .concat());
    let kept = sh(&format!("nsenter --net={dir}/net --ipc={dir}/ipc readlink /proc/self/ns/net /proc/self/ns/ipc"));
    assert_eq!(inside, kept.trim());
    assert_eq!(sh(&format!("nsenter --mount={dir}/mount cat /mnt/x")).trim(), "kept");
    let pids = sh(&format!("stat -f -c %T {dir}/pid"));
    assert_eq!(pids.trim(), "nsfs");
    let script = stage.onggi.ok(&["ns", "run", "--explain=sh", &format!("--uts={dir}/by-hand"), "hostname", "hand"]);
    sh(&script);
    assert_eq!(sh(&format!("nsenter --uts={dir}/by-hand hostname")).trim(), "hand", "{script}");
    let files = ["uts", "net", "ipc", "pid", "mount", "by-hand"].map(|name| format!("{dir}/{name}"));
    let names: Vec<&str> = files.iter().map(String::as_str).collect();
    stage.onggi.ok(&[&["ns", "rm"], &names[..]].concat());
    assert!(!std::path::Path::new(&uts).exists());
    let refused = stage.onggi.run(&["ns", "rm", "/etc/passwd"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("is no namespace"), "{refused}");
    sh(&format!("umount {dir}"));
    stage.onggi.assert_nothing_left();
}

/// Since Linux 6.18 each CPU numbers namespaces from a batch of its own, and the kernel lets a mount namespace be kept
/// only in one with a lower number.
#[test]
fn e2e_ns_run_keeps_a_mount_namespace_that_another_cpu_numbers_as_older() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().display().to_string();
    let allowed = sh("taskset -cp $$ | sed 's/.*: //; s/[,-]/ /g'");
    let cpus: Vec<&str> = allowed.split_whitespace().collect();
    let (first, last) = (cpus[0], cpus[cpus.len() - 1]);
    let line = line_of(&stage.onggi.command(&["ns", "run"]));
    for (outer, inner) in [(first, last), (last, first)] {
        for more in ["", "--user --map-root-user", "--pid --fork"] {
            let file = format!("{dir}/mnt");
            let inside = format!(
                "set -e; touch {file}; taskset -c {inner} {line} --mount={file} {more} sh -c 'taskset -cp $$; mount -t tmpfs kept /mnt'
                 nsenter --mount={file} stat -f -c %T /mnt; umount {file}"
            );
            let ran = sh(&format!("taskset -c {outer} unshare --mount sh -c \"{}\"", inside.replace('$', "\\$")));
            let lines: Vec<&str> = ran.lines().collect();
            assert!(lines[0].ends_with(&format!(": {inner}")), "the affinity is what it was: {ran}");
            assert_eq!(lines[1], "tmpfs", "{outer} {inner} {more}");
        }
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_ns_run_runs_nothing_when_a_namespace_cannot_be_kept_and_says_why() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().display().to_string();
    sh(&format!("mount --bind {dir} {dir}; mount --make-shared {dir}"));
    let cases = [
        (vec![format!("--mount={dir}/mnt")], "which others share (shared:"),
        (vec![format!("--mount={dir}/mnt"), format!("--pid={dir}/pid")], "which others share (shared:"),
        (vec![format!("--pid={dir}/no/such")], "keep the pid namespace"),
        (vec![format!("--net={dir}/no/such")], "keep the net namespace"),
    ];
    for (options, part) in cases {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let refused = stage.onggi.run(&[&["ns", "run"], &options[..], &["sh", "-c", "echo ran"]].concat());
        assert!(refused.code != Some(0) && refused.stdout.is_empty(), "{refused}");
        assert!(refused.stderr.contains(part) && refused.stderr.contains("the command was not run"), "{refused}");
    }
    assert!(!std::path::Path::new(&format!("{dir}/mnt")).exists(), "a file that keeps nothing is not left");
    // What fails before the helper's part is not kept either.
    sh(&format!("chmod 777 {dir}"));
    let line = line_of(&stage.onggi.command(&["ns", "run", &format!("--net={dir}/net"), "echo", "ran"]));
    let refused = sh(&format!("setpriv --reuid 12345 --regid 12345 --clear-groups {line} 2>&1 || echo refused"));
    assert!(refused.contains("make new namespaces (net)") && refused.ends_with("refused\n"), "{refused}");
    assert!(!refused.contains("outside") && !std::path::Path::new(&format!("{dir}/net")).exists(), "{refused}");
    sh(&format!("umount {dir}"));
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_ns_run_maps_ranges_of_ids_as_unshare_does() {
    let stage = Stage::new();
    let look = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; id -g";
    // unshare maps by newuidmap, which asks these files even for root.
    let dir = stage.onggi.dir().display();
    sh(&format!(
        "echo root:100000:1000 > {dir}/subuid; echo root:200000:1000 > {dir}/subgid
         mount --bind {dir}/subuid /etc/subuid; mount --bind {dir}/subgid /etc/subgid"
    ));
    let ours = ["--map-users", "0:100000:1000", "--map-groups", "0:200000:1000", "--setuid", "0", "--setgid", "0"];
    let run = |how: &[&str]| stage.onggi.ok(&[&["ns", "run"], how, &ours, &["sh", "-c", look]].concat());
    let theirs = sh(&format!(
        "unshare --map-users=100000,0,1000 --map-groups=200000,0,1000 --setuid 0 --setgid 0 sh -c \"{look}\""
    ));
    assert_eq!(run(&[]).trim(), theirs.trim());
    let script = run(&["--explain=sh"]);
    assert_eq!(sh(&script).trim(), theirs.trim(), "{script}");
    let words = run(&["--explain"]);
    assert!(words.contains("uid_map gets \"0 100000 1000\""), "{words}");
    for (range, part) in [("1:2", "three numbers"), ("0:0:0", "empty")] {
        let refused = stage.onggi.run(&["ns", "run", "--map-users", range, "true"]);
        assert!(refused.code != Some(0) && refused.stderr.contains(part), "{refused}");
    }
    let auto = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '";
    let theirs = sh(&format!("unshare --map-auto sh -c \"{auto}\""));
    assert_eq!(stage.onggi.ok(&["ns", "run", "--map-auto", "sh", "-c", auto]).trim(), theirs.trim());
    sh("umount /etc/subuid /etc/subgid");
    let short =
        stage.onggi.ok(&["ns", "run", "-pfn", "--mount-proc", "sh", "-c", "echo $$; ls /sys/class/net | wc -l"]);
    assert!(short.starts_with("1\n"), "{short}");
    stage.onggi.assert_nothing_left();
}
