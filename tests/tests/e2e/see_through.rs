//! What every command that shows its work promises: its operations as they are done, a plan before, nothing left behind by
//! one that is killed, an error where nobody reads what is printed.

use std::{fs, process::Stdio};

use onggi_tests::{eventually, machine::sh};
use serde_json::Value;

use crate::Stage;

impl Stage {
    /// What a command tells with `ONGGI_TRACE=1`, without times.
    #[track_caller]
    fn told(&self, arguments: &[&str]) -> String {
        let ran = self.onggi.finish(self.onggi.command(arguments).env("ONGGI_TRACE", "1"));
        assert_eq!(ran.code, Some(0), "{ran}");
        let lines = ran.stderr.lines().filter_map(|line| line.strip_prefix("onggi-trace ")?.split_once(" +"));
        lines.filter_map(|(_, rest)| rest.split_once(' ')).map(|(_, what)| format!("{what}\n")).collect()
    }

    /// A command line whose standard output is closed, as `>&-` does.
    fn unread(&self, arguments: &[&str]) -> (i32, String) {
        let command = self.onggi.command(arguments);
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let line: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("{} >&-", line.join(" "))]).stdin(Stdio::null());
        let done = shell.output().expect("sh runs");
        (done.status.code().unwrap_or(-1), String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

#[test]
fn e2e_every_primitive_tells_its_operations_as_they_are_done() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().display().to_string();
    sh(&format!("cd {dir}; cp /bin/busybox prog; mkdir low1 low2 merged jar"));
    let at = |name: &str| format!("{dir}/{name}");
    let group = format!("onggi-test-trace-{}", std::process::id());
    let cases: [(&[&str], &[&str]); 14] = [
        (&["caps", "set", &at("prog"), "cap_net_raw=ep"], &["primitives: setxattr(2) security.capability"]),
        (&["caps", "run", "--drop", "net_raw", "--", "true"], &["primitives: ", "execve(2): true"]),
        (
            &["overlay", "mount", "--lower", &at("low1"), "--lower", &at("low2"), &at("merged")],
            &["primitives: mount(2) an overlay"],
        ),
        (&["overlay", "unmount", &at("merged")], &["primitives: umount2(2)"]),
        (
            &["chroot", &at("jar"), "--with", "busybox", "--", "busybox", "true"],
            &["pivot_root(2)", "execve(2): busybox true"],
        ),
        (&["ns", "run", &format!("--uts={}", at("kept")), "true"], &["unshare(2)", "keep the uts namespace by"]),
        (&["ns", "enter", &at("kept"), "--", "true"], &["primitives: setns(2)", "execve(2): true"]),
        (&["ns", "rm", &at("kept")], &["umount2(2)", "unlink(2)"]),
        (
            &["net", "connect", "host", "blue", "--create"],
            &["network: create a veth pair", "network: create a network namespace"],
        ),
        (&["net", "connect", "host", "blue", "--remove"], &["network: "]),
        (&["cgroup", "create", &group], &["primitives: mkdir(2)"]),
        (&["cgroup", "set", &group, "pids=7"], &["primitives: write \"7\" to", "pids.max"]),
        (&["cgroup", "rm", &group], &["primitives: rmdir(2)"]),
        (
            &["limit", "--pids", "9", "--nice", "3", "--ulimit", "core=0", "true"],
            &["mkdir(2)", "prlimit(2)", "setpriority(2)", "execve(2): true", "primitives: kill every process"],
        ),
    ];
    for (arguments, parts) in cases {
        let told = stage.told(arguments);
        for part in parts {
            assert!(told.contains(part), "{arguments:?}: {part:?} is missing in\n{told}");
        }
    }
    stage.onggi.ok(&["ns", "rm", "/run/netns/blue"]);
    let box_of = ["run", "-d", "--network", "none", "--name", "box", &stage.busybox, "sleep", "100"];
    stage.onggi.ok(&box_of);
    let audit = stage.told(&["caps", "audit", "--for", "1", "box"]);
    assert!(audit.contains("set_event_pid") && audit.contains("mkdir(2) in instances of tracefs"), "{audit}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_learning_explains_itself_and_its_script_sees_the_workload() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let output = stage.onggi.dir().join("learned").display().to_string();
    let learn = |explain: &str| {
        let run =
            ["learn", "run", explain, "--output", &output, "--network", "none", &stage.busybox, "cat", "/etc/passwd"];
        stage.onggi.ok(&run)
    };
    let words = learn("--explain");
    for part in ["instances of tracefs", "each system call is told", "pivot", "flags into", "as `onggi rm -f` does"] {
        assert!(words.contains(part), "{part:?} is missing in\n{words}");
    }
    let json: Value = serde_json::from_str(&learn("--explain=json")).expect("it is JSON");
    assert!(json["before"][0]["op"] == "instance" && json["run"].is_object(), "{json}");
    assert!(!fs::exists(&output).expect("look"), "nothing was done");
    let script = stage.onggi.dir().join("script");
    fs::write(&script, learn("--explain=sh")).expect("write");
    let numbers = sh(&format!("unshare -m sh {}", script.display()));
    let lines: Vec<&str> = numbers.lines().collect();
    let calls = lines.iter().position(|line| *line == "system calls:").expect("a heading");
    // write and execve.
    assert!(lines[calls..].contains(&"1") && lines[calls..].contains(&"59"), "{numbers}");
    assert!(lines.iter().any(|line| line.starts_with("root:")), "the workload has run: {numbers}");
    assert_eq!(sh("unshare -m sh -c 'mount -t tracefs x /mnt; ls /mnt/instances | grep by-hand || true'"), "");
    stage.onggi.assert_nothing_left();
}

/// Traces of ours whose maker is gone, as the kernel lists them.
fn instances() -> String {
    sh("unshare -m sh -c 'mount -t tracefs x /mnt; ls /mnt/instances'")
}

#[test]
fn e2e_a_trace_that_a_killed_program_left_is_noticed_and_removed() {
    let stage = Stage::new();
    let output = stage.onggi.dir().join("learned").display().to_string();
    let learn =
        ["learn", "run", "--output", &output, "--name", "box", "--network", "none", &stage.busybox, "sleep", "100"];
    let mut command = stage.onggi.command(&learn);
    let mut learning = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("onggi runs");
    let prefix = format!("onggi-{}-", learning.id());
    eventually("the workload runs", || {
        (stage.onggi.run(&["inspect", "-f", "{{.State.Running}}", "box"]).stdout.trim() == "true").then_some(())
    });
    let name = instances().lines().find(|name| name.starts_with(&prefix)).map(str::to_owned);
    let name = name.unwrap_or_else(|| panic!("no {prefix} in {}", instances()));
    let traces = || stage.onggi.run(&["doctor", "--format", "{{.Name}} {{.Found}}"]).stdout;
    let row = |text: String| text.lines().find(|line| line.starts_with("traces ")).map(str::to_owned);
    assert!(row(traces()).is_some_and(|row| !row.contains(&name)), "it is in use");
    learning.kill().expect("it is killed");
    learning.wait().expect("it ends");
    assert!(row(traces()).is_some_and(|row| row.contains(&name)), "{}", traces());
    let plan = stage.onggi.ok(&["system", "prune", "--explain"]);
    assert!(plan.contains(&name), "{plan}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.ok(&["system", "prune", "-f"]);
    assert!(!instances().contains(&name), "{}", instances());
    assert!(row(traces()).is_some_and(|row| !row.contains(&name)), "{}", traces());
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_output_that_nobody_can_read_is_an_error_everywhere() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let commands: [&[&str]; 15] = [
        &["--help"],
        &["version"],
        &["images"],
        &["ps", "-a"],
        &["save", &stage.busybox],
        &["inspect", &stage.busybox],
        &["ns", "ls"],
        &["ns", "inspect", "self"],
        &["caps", "show"],
        &["caps", "decode", "3"],
        &["cgroup", "ls", "--depth", "0"],
        &["net", "ls"],
        &["doctor"],
        &["man"],
        &["ns", "run", "--explain", "--uts", "true"],
    ];
    for arguments in commands {
        let (code, said) = stage.unread(arguments);
        assert!(
            code == 1 && said.contains("cannot write the output: bad file descriptor"),
            "{arguments:?}: {code} {said}"
        );
    }
    // What prints nothing needs no reader, and a command's own output is its own.
    for arguments in [&["tag", &stage.busybox, "other"][..], &["ps", "-q"], &["ns", "run", "--uts", "true"]] {
        assert_eq!(stage.unread(arguments), (0, String::new()), "{arguments:?}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_labels_are_shown_by_their_key_and_dockers_commands_are_known() {
    let stage = Stage::new();
    let labels = ["--label", "com.example.team-name=a, b", "--label", "x=1"];
    let create = [&["create", "--name", "box"], &labels[..], &[stage.busybox.as_str(), "true"]].concat();
    stage.onggi.ok(&create);
    let ps = |format: &str| stage.onggi.ok(&["ps", "-a", "--format", format]);
    assert_eq!(ps(r#"{{.Names}} {{.Label "com.example.team-name"}}|{{.Label "none"}}|"#), "box a, b||");
    assert_eq!(ps(r#"table {{.Label "com.example.team-name"}}"#), "team name\na, b");
    assert!(!ps("json").contains("\"Label\":"), "{}", ps("json"));
    for (arguments, parts) in [
        (&["compose", "up"][..], ["there is no `compose` yet", "onggi run -d"]),
        (&["run", "--gpus", "all", "x"], ["no --gpus yet", "onggi-oci run"]),
        (&["container", "checkpoint", "box"], ["there is no `checkpoint` yet", "criu(8)"]),
        (&["image", "build", "."], ["there is no `build` yet", "buildah"]),
    ] {
        let ran = stage.onggi.run(arguments);
        assert!(ran.code == Some(125) && parts.iter().all(|part| ran.stderr.contains(part)), "{ran}");
    }
    stage.onggi.ok(&["rm", "box"]);
    stage.onggi.assert_nothing_left();
}
