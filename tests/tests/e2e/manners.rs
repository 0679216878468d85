//! What somebody who tries the program out stumbles on: refusals that name the cause, and defaults that scripts rely on.

use std::{fs, process::Stdio};

use onggi_tests::{assert_refused, machine::sh};

use crate::Stage;

#[test]
fn e2e_names_are_filtered_by_regular_expressions_and_empty_options_are_defaults() {
    let stage = Stage::new();
    let empty = ["--name", "", "-u", "", "-w", "", "--hostname", ""];
    let plain = stage.onggi.ok(&[&["create"], &empty[..], &[stage.busybox.as_str(), "true"]].concat());
    stage.onggi.ok(&["rm", &plain]);
    for name in ["cc", "cc2"] {
        let run = ["run", "-d", "--name", name, "--network", "none", &stage.busybox, "sleep", "100"];
        stage.onggi.ok(&run);
    }
    for (filter, want) in [("^cc$", "cc"), ("^/cc$", "cc"), ("c.", "cc2\ncc"), ("cc", "cc2\ncc"), ("^c$", "")] {
        let found = stage.onggi.ok(&["ps", "--format", "{{.Names}}", "--filter", &format!("name={filter}")]);
        assert_eq!(found, want, "{filter}");
    }
    assert_refused(&stage.onggi.run(&["ps", "--filter", "name=("]), 1, &["filter name", "("]);
    assert_eq!(stage.onggi.ok(&["exec", "-u", "", "-w", "", "cc", "echo", "hi"]), "hi");
    let lost = stage.onggi.run(&["exec", "-w", "/nonexist", "cc", "true"]);
    assert!(lost.stderr.matches("exec failed").count() == 1 && !lost.stderr.contains("Flags("), "{lost}");
    stage.onggi.ok(&["kill", "cc"]);
    stage.onggi.ok(&["stop", "-t", "-1", "cc"]);
    stage.onggi.ok(&["rm", "-f", "cc", "cc2"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_archives_that_are_cut_short_or_nothing_at_all_are_refused_as_such() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().display().to_string();
    sh(&format!(
        "cd {dir}; : > empty; head -c 1024 /dev/zero > none.tar; mkdir tree; head -c 100000 /dev/urandom > tree/x; \
         tar -cf whole.tar tree; tar -czf whole.tgz tree; head -c 50000 whole.tar > cut.tar; head -c 50000 whole.tgz > cut.tgz"
    ));
    let import = |file: &str| stage.onggi.run(&["import", &format!("{dir}/{file}")]);
    assert_refused(&import("empty"), 1, &["the archive is empty"]);
    sh(&format!(
        "cd {dir}; gzip < none.tar > none.tgz; gzip < empty > empty.tgz; cat whole.tar /dev/zero | head -c 80M > long.tar"
    ));
    assert_refused(&import("empty.tgz"), 1, &["the archive is empty"]);
    for none in ["none.tar", "none.tgz"] {
        let ran = import(none);
        assert!(
            ran.code == Some(0) && ran.stderr.contains("without a single file"),
            "an archive of nothing is one: {ran}"
        );
    }
    for endless in ["/dev/zero", "/dev/urandom"] {
        let ran = stage.onggi.run(&["import", endless]);
        assert_refused(&ran, 1, &[endless, "cannot be read as an archive"]);
        assert_refused(&stage.onggi.run(&["load", "-i", endless]), 1, &[endless, "docker save"]);
    }
    assert_refused(&import("long.tar"), 1, &["long.tar", "bytes of zeros follow"]);
    fs::remove_file(format!("{dir}/long.tar")).expect("remove it");
    for cut in ["cut.tar", "cut.tgz"] {
        let ran = import(cut);
        assert_refused(&ran, 1, &[cut, "cannot be read as an archive", "cut short"]);
        assert!(!ran.stderr.contains("hostile") && !ran.stderr.contains("registry"), "{ran}");
    }
    assert_refused(&stage.onggi.run(&["load", "-i", &format!("{dir}/cut.tgz")]), 1, &["cut short"]);
    let mut nothing = stage.onggi.command(&["import", "-", "x"]);
    let done = nothing.stdin(Stdio::null()).output().expect("import runs");
    assert!(!done.status.success() && stage.onggi.run(&["inspect", "x"]).code == Some(1));
}

#[test]
fn e2e_what_is_nothing_is_called_so_and_told_how_it_is_written() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().display().to_string();
    fs::write(format!("{dir}/ping"), "").expect("write a file");
    let in_dir = |args: &[&str]| {
        let done = stage.onggi.command(args).current_dir(&dir).output().expect("onggi runs");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    for args in [&["caps", "show", "ping"][..], &["ns", "enter", "ping"]] {
        assert!(in_dir(args).contains("./ping"), "{args:?}: {}", in_dir(args));
    }
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["caps", "show", "99999999"], 1, &["no process 99999999"]),
        (&["ns", "enter", "99999999"], 1, &["no process 99999999"]),
        (&["caps", "run", "--user", "nosuch", "true"], 1, &["nosuch", "no such user in /etc/passwd"]),
        (&["caps", "set", "/bin/true", ""], 1, &["empty", "--remove"]),
        (&["ns", "ls", "--format", "{{.NS}}"], 1, &["fields: Inode, Type"]),
        (&["inspect", "nosuch"], 1, &["no such object: nosuch"]),
        (&["diff", "nosuch"], 1, &["no such object: nosuch"]),
        (&["ns", "run", "--bogus"], 125, &["--bogus"]),
        (&["ns", "run", "--map-user"], 125, &["--map-user"]),
        (&["limit", "--bogus", "true"], 125, &["--bogus"]),
        (&["ns", "enter", "self", "--bogus"], 1, &["unknown option"]),
        (&["net", "connect", "host", "host"], 1, &["host cannot be connected with itself"]),
        (&["net", "connect", "host", "self"], 1, &["the same network"]),
        (&["net", "bridge", "lo", "--remove"], 1, &["lo in host: a device of another kind"]),
    ];
    for (args, code, pieces) in cases {
        assert_refused(&stage.onggi.run(args), *code, pieces);
    }
    let none = stage.onggi.run(&["limit", "--cpus", "0", "true"]);
    assert!(none.code == Some(125) && none.stderr.contains("0 would stop every process"), "{none}");
    let overlay = stage.onggi.run(&["overlay", "mount", "--lower", &dir, "--upper", &dir, "/nowhere"]);
    assert_refused(&overlay, 1, &["cannot be a lower directory and the upper one"]);
    let empty = stage.onggi.run(&["overlay", "mount", "--lower", "", "--upper", &dir, "/nowhere"]);
    assert_refused(&empty, 1, &["an empty text names no directory"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_streams_that_end_or_are_full_are_told_by_the_exit_code() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let full = fs::File::create("/dev/full").expect("open /dev/full");
    let help = stage.onggi.command(&["--help"]).stdout(full).status().expect("onggi runs");
    assert_eq!(help.code(), Some(1));
    let mut save = stage.onggi.command(&["save", &stage.busybox]);
    let mut child = save.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("onggi runs");
    drop(child.stdout.take());
    let done = child.wait_with_output().expect("it ends");
    assert!(done.status.code() == Some(141) && done.stderr.is_empty(), "{done:?}");
    let silent = stage.onggi.run(&["limit", "-m", "16M", "--memory-swap", "16M", "tail", "/dev/zero"]);
    assert!(silent.code == Some(137) && silent.stderr.contains("out of memory"), "{silent}");
}
