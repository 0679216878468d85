//! `cp`: Docker's rules, on running and stopped containers, and nothing of a hostile container reaches the host.

use std::{fs, path::PathBuf, process::Stdio};

use onggi_tests::{Ran, assert_refused, machine::sh};

use crate::Stage;

/// A container that sleeps, and a directory of this machine.
struct Copying {
    stage: Stage,
    dir: PathBuf,
}

impl Copying {
    fn new(options: &[&str]) -> Copying {
        let stage = Stage::new();
        let run = ["run", "-d", "--name", "box", "--network", "none"];
        let dir = stage.onggi.dir().join("here");
        fs::create_dir(&dir).expect("make a directory");
        stage.onggi.ok(&[&run[..], options, &[&stage.busybox, "sleep", "1000"]].concat());
        Copying { stage, dir }
    }

    fn cp(&self, from: &str, to: &str) -> Ran {
        self.with(&["cp", from, to])
    }

    fn with(&self, words: &[&str]) -> Ran {
        self.stage.onggi.finish(self.stage.onggi.command(words).current_dir(&self.dir))
    }

    #[track_caller]
    fn ok(&self, from: &str, to: &str) {
        let ran = self.cp(from, to);
        assert_eq!(ran.code, Some(0), "{ran}");
    }

    #[track_caller]
    fn refused(&self, from: &str, to: &str, pieces: &[&str]) {
        assert_refused(&self.cp(from, to), 1, pieces);
    }

    /// What a script prints in the container.
    #[track_caller]
    fn inside(&self, script: &str) -> String {
        self.stage.onggi.ok(&["exec", "box", "sh", "-c", script])
    }

    /// What a script prints in the directory here.
    #[track_caller]
    fn here(&self, script: &str) -> String {
        sh(&format!("cd {}; {script}", self.dir.display())).trim_end().to_owned()
    }

    /// A command of ours in a shell, for pipes.
    fn onggi(&self, words: &str) -> String {
        let onggi = &self.stage.onggi;
        format!(
            "{} --root {} --runroot {} {words}",
            onggi.program().display(),
            onggi.root().display(),
            onggi.runroot().display()
        )
    }

    fn end(self) {
        self.stage.onggi.ok(&["rm", "-f", "box"]);
        self.stage.onggi.assert_nothing_left();
    }
}

#[test]
fn e2e_cp_into_a_container_follows_dockers_rules() {
    let c = Copying::new(&[]);
    c.here("echo one > file; mkdir -p tree/sub; echo two > tree/sub/x; ln -s sub/x tree/link; chmod 640 file; touch -d @1000 file");
    let said = c.cp("file", "box:/tmp");
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (Some(0), "", "Successfully copied 4B to box:/tmp\n")
    );
    assert_eq!(c.inside("cat /tmp/file; stat -c '%u:%g %a %Y' /tmp/file"), "one\n0:0 640 1000");
    c.ok("file", "box:/tmp/other");
    c.ok("./file", "box:tmp/other");
    assert_eq!(c.inside("cat /tmp/other"), "one");
    c.ok("tree", "box:/tmp");
    assert_eq!(c.inside("cat /tmp/tree/sub/x; readlink /tmp/tree/link"), "two\nsub/x");
    c.ok("tree", "box:/tmp/new");
    assert_eq!(c.inside("ls /tmp/new"), "link\nsub");
    c.ok("tree", "box:/tmp/new2/");
    c.ok("tree/.", "box:/tmp/new3");
    c.inside("mkdir /tmp/there; echo kept > /tmp/there/kept");
    c.ok("tree/.", "box:/tmp/there");
    assert_eq!(c.inside("ls /tmp/new2; ls /tmp/new3; ls /tmp/there"), "link\nsub\nlink\nsub\nkept\nlink\nsub");
    c.refused("tree", "box:/tmp/file", &["is a directory", "is a file"]);
    c.refused("file", "box:/tmp/none/", &["is not there"]);
    c.refused("file", "box:/tmp/other/", &["no directory"]);
    c.refused("file", "box:/none/file", &["no such directory", "/none"]);
    c.refused("file/", "box:/tmp", &["no directory"]);
    c.refused("nothing", "box:/tmp", &["no such file"]);
    c.refused("file", "box:/dev/null", &["device"]);
    c.refused("file", "nobox:/tmp", &["nobox"]);
    c.refused("file", "other", &["CONTAINER:PATH"]);
    c.refused("box:/a", "box:/b", &["between containers"]);
    // A tree never replaces a file by a directory, nor the other way round.
    c.inside("rm -rf /tmp/there/sub; touch /tmp/there/sub");
    c.refused("tree/.", "box:/tmp/there", &["sub", "no directory"]);
    let quiet = c.with(&["container", "cp", "-q", "file", "box:/tmp"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""), "{quiet}");
    c.here("chown 1234:5678 file; chmod 6755 file");
    c.ok("file", "box:/tmp");
    assert_eq!(c.inside("stat -c '%u:%g %a' /tmp/file"), "0:0 755");
    assert_eq!(c.with(&["cp", "-a", "file", "box:/tmp"]).code, Some(0));
    assert_eq!(c.inside("stat -c '%u:%g %a' /tmp/file"), "1234:5678 6755");
    c.end();
}

#[test]
fn e2e_cp_out_of_a_container_follows_dockers_rules() {
    let c = Copying::new(&[]);
    c.inside("mkdir -p /d/sub; echo two > /d/sub/x; ln -s sub/x /d/link; ln -s d /dlink; chown -R 1000:1000 /d; chmod 4755 /d/sub/x; mkfifo /d/pipe");
    c.ok("box:/d", ".");
    assert_eq!(
        c.here("cat d/sub/x; readlink d/link; stat -c '%u:%g %a' d/sub/x; stat -c %F d/pipe"),
        "two\nsub/x\n0:0 755\nfifo"
    );
    c.ok("box:/d/.", "new");
    c.ok("box:/d/", "new");
    assert_eq!(c.here("ls new; ls new/d"), "d\nlink\npipe\nsub\nlink\npipe\nsub");
    c.ok("box:/d/link", "copied");
    assert_eq!(c.here("readlink copied"), "sub/x");
    assert_eq!(c.with(&["cp", "-L", "box:/d/link", "followed"]).code, Some(0));
    assert_eq!(c.with(&["cp", "-L", "box:/dlink", "whole"]).code, Some(0));
    c.ok("box:/dlink/", "slash");
    assert_eq!(c.here("cat followed; ls whole slash"), "two\nslash:\nlink\npipe\nsub\n\nwhole:\nlink\npipe\nsub");
    assert_eq!(c.with(&["cp", "-a", "box:/d/sub/x", "kept"]).code, Some(0));
    assert_eq!(c.here("stat -c '%u:%g %a' kept"), "1000:1000 4755");
    c.here("ln -s target dangling; ln -s d tod");
    c.ok("box:/etc/passwd", "dangling");
    c.ok("box:/etc/passwd", "tod");
    assert_eq!(c.here("test -f target -a -f d/passwd && echo both"), "both");
    c.refused("box:/none", ".", &["no such file"]);
    c.refused("box:/d", "copied/x", &["no such directory"]);
    // Special files of the container are nothing that is opened, and the kernel's filesystems are no files of it.
    let root = c.cp("box:/", "root");
    assert!(root.code == Some(0) && root.stderr.contains("/proc was left out"), "{root}");
    assert_eq!(
        c.here("cat root/d/sub/x; ls root/proc 2>&1 | head -n 1; ls -A root/dev | grep null || echo none"),
        "two\nls: cannot access 'root/proc': No such file or directory\nnone"
    );
    c.stage.onggi.ok(&["pause", "box"]);
    c.ok("box:/etc/passwd", "paused");
    assert!(fs::metadata(c.dir.join("paused")).is_ok_and(|meta| meta.len() > 0));
    c.end();
}

#[test]
fn e2e_cp_sees_volumes_of_running_and_stopped_containers() {
    let volume = tempfile::tempdir().expect("make a directory");
    let (path, ro) = (volume.path().join("rw"), volume.path().join("ro"));
    for dir in [&path, &ro] {
        fs::create_dir(dir).expect("make a directory");
    }
    fs::write(ro.join("given"), "given").expect("write");
    let (rw, read_only) = (format!("{}:/vol", path.display()), format!("{}:/ro:ro", ro.display()));
    let c = Copying::new(&["-v", &rw, "-v", &read_only]);
    fs::write(c.dir.join("file"), "1").expect("write");
    c.inside("echo written > /written; rm /etc/group");
    for round in ["running", "stopped"] {
        c.ok("file", &format!("box:/vol/{round}"));
        assert!(path.join(round).exists(), "{round}");
        c.ok("box:/ro/given", &format!("given-{round}"));
        assert_eq!(c.here(&format!("cat given-{round}")), "given");
        c.refused("file", "box:/ro/x", &["ead-only"]);
        c.ok("file", &format!("box:/etc/{round}"));
        c.ok("box:/written", &format!("written-{round}"));
        assert_eq!(c.here(&format!("cat written-{round}")), "written");
        c.refused("box:/etc/group", ".", &["no such file"]);
        c.stage.onggi.ok(&["stop", "-t", "0", "box"]);
    }
    c.stage.onggi.ok(&["start", "box"]);
    assert_eq!(
        c.inside("ls /vol; ls /etc/running /etc/stopped; stat -c %u /etc/stopped"),
        "running\nstopped\n/etc/running\n/etc/stopped\n0"
    );
    let diff = c.stage.onggi.ok(&["diff", "box"]);
    assert!(diff.contains("A /etc/stopped") && diff.contains("D /etc/group"), "{diff}");
    assert!(
        !sh("cat /proc/self/mountinfo").contains(&c.stage.onggi.root().display().to_string()),
        "nothing stays mounted"
    );
    c.end();
}

#[test]
fn e2e_cp_created_and_read_only_containers() {
    let c = Copying::new(&["--read-only", "-v", "/usr/bin:/tools:ro"]);
    fs::write(c.dir.join("file"), "1").expect("write");
    c.refused("file", "box:/etc/x", &["ead-only"]);
    c.stage.onggi.ok(&["kill", "box"]);
    c.refused("file", "box:/etc/x", &["ead-only"]);
    c.ok("box:/etc/passwd", "p");
    for remove in [&["--rm"][..], &[]] {
        let create = ["create", "--name", "new", "--network", "none"];
        c.stage.onggi.ok(&[&create[..], remove, &[&c.stage.busybox, "cat", "/root/file"]].concat());
        c.ok("file", "new:/root/file");
        assert_eq!(c.stage.onggi.run(&["start", "-a", "new"]).stdout, "1");
        c.stage.onggi.run(&["rm", "-f", "new"]);
    }
    let words = c.with(&["cp", "--explain", "file", "box:/etc/x"]);
    assert!(words.code == Some(0) && words.stdout.contains("mount namespace"), "{words}");
    c.end();
}

#[test]
fn e2e_cp_streams_are_tar_archives() {
    let c = Copying::new(&[]);
    c.inside("mkdir -p /d/sub; echo one > /d/one; ln /d/one /d/sub/same; ln -s one /d/link; chown 7:8 /d/one");
    let out = c.onggi("cp box:/d - ");
    assert_eq!(c.here(&format!("{out} | tar t")), "d/\nd/link\nd/one\nd/sub/\nd/sub/same");
    assert_eq!(c.here(&format!("{out} | tar tv --numeric-owner | grep -c ' 7/8 '")), "2");
    assert_eq!(c.here(&format!("{} | tar t", c.onggi("cp box:/d/. -"))), "./\n./link\n./one\n./sub/\n./sub/same");
    assert_eq!(c.here(&format!("{} | tar t", c.onggi("cp box:/d/one -"))), "one");
    c.here(&format!("{out} | gzip | {}", c.onggi("cp - box:/tmp")));
    assert_eq!(c.inside("cat /tmp/d/sub/same; readlink /tmp/d/link; stat -c '%u:%g %h' /tmp/d/one"), "one\none\n7:8 2");
    // Stopped as well.
    c.stage.onggi.ok(&["stop", "-t", "0", "box"]);
    c.here(&format!("mkdir -p a/b; echo deep > a/b/c; tar c a | {}", c.onggi("cp - box:/root")));
    assert_eq!(c.here(&format!("{} | tar xO", c.onggi("cp box:/root/a/b/c -"))), "deep");
    for (archive, to, piece) in [
        ("tar cP --transform=s,^a,../a, a", "box:/root", "leads out"),
        ("tar c a", "box:/etc/passwd", "no directory"),
        ("tar c a", "box:/none", "no such"),
        ("head -c 2000 /dev/urandom", "box:/root", "onggi: "),
        ("tar c a | head -c 700", "box:/root", "onggi: "),
    ] {
        let said = c.here(&format!("set +e; {archive} | {} 2>&1; echo code $?", c.onggi(&format!("cp - {to}"))));
        assert!(said.ends_with("code 1") && said.contains(piece), "{archive}: {said}");
    }
    c.end();
}

#[test]
fn e2e_cp_links_of_a_container_lead_nowhere_else() {
    let c = Copying::new(&[]);
    let secret = c.stage.onggi.dir().join("secret");
    fs::create_dir(&secret).expect("make a directory");
    fs::write(secret.join("key"), "host").expect("write");
    fs::write(c.dir.join("file"), "from the host").expect("write");
    let at = secret.display().to_string();
    let script = format!(
        "ln -s {at} /abs; ln -s ../../../../../../..{at} /rel; ln -s {at}/key /key; ln -s /proc/1/root /magic; ln -s {at}/made /dangling; mkdir /t; ln -s {at} /t/in"
    );
    c.inside(&script);
    for round in ["running", "stopped"] {
        for path in ["box:/abs/key", "box:/rel/key", "box:/abs/", "box:/magic/etc/shadow"] {
            assert_eq!(c.cp(path, "stolen").code, Some(1), "{round}: {path}");
        }
        assert_eq!(c.with(&["cp", "-L", "box:/key", "stolen"]).code, Some(1));
        for path in ["box:/abs/x", "box:/rel/x", "box:/dangling", "box:/t/in/x"] {
            assert_eq!(c.cp("file", path).code, Some(1), "{round}: {path}");
        }
        // A tree is copied into one that has a link in its place.
        c.here("mkdir -p t/in; echo x > t/in/key");
        c.refused("t/.", "box:/t", &["in", "no directory"]);
        let stream = c.here(&format!("set +e; tar c t | {} 2>&1; echo code $?", c.onggi("cp - box:/")));
        assert!(stream.ends_with("code 1") && stream.contains("t/in"), "{round}: {stream}");
        assert_eq!(fs::read_to_string(secret.join("key")).expect("it is there"), "host");
        assert_eq!(fs::read_dir(&secret).expect("read").count(), 1, "{round}");
        assert!(!c.dir.join("stolen").exists(), "{round}");
        c.stage.onggi.ok(&["stop", "-t", "0", "box"]);
    }
    c.end();
}

#[test]
fn e2e_cp_large_and_busy_trees_are_copied_whole() {
    let c = Copying::new(&[]);
    c.here("mkdir -p big; head -c 20000000 /dev/urandom > big/random; for i in $(seq 300); do echo $i > big/$i; done; mkdir -p big/$(printf 'd/%.0s' $(seq 150))");
    c.ok("big", "box:/tmp");
    c.ok("box:/tmp/big", "back");
    c.here("diff -r big back");
    let mut command = c.stage.onggi.command(&["cp", "box:/tmp/big", "-"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start onggi");
    // Nobody reads to the end.
    drop(child.stdout.take());
    let ran = child.wait().expect("it ends");
    assert_eq!(ran.code(), Some(141), "as a program that SIGPIPE ends");
    c.end();
}

#[test]
fn e2e_cp_owners_of_a_container_in_a_user_namespace() {
    let c = Copying::new(&["--userns", "auto"]);
    fs::write(c.dir.join("file"), "1").expect("write");
    c.inside("echo out > /root/x; chown 33:33 /root/x");
    c.ok("box:/root/x", "x");
    assert_eq!(c.here("cat x; stat -c %u:%g x"), "out\n0:0");
    c.refused("file", "box:/root/file", &["--userns auto", "onggi stop box"]);
    c.stage.onggi.ok(&["stop", "-t", "0", "box"]);
    c.ok("file", "box:/root/file");
    assert_eq!(c.with(&["cp", "-a", "box:/root/x", "kept"]).code, Some(0));
    assert_eq!(c.here("stat -c %u:%g kept"), "33:33", "the numbers are those inside");
    c.stage.onggi.ok(&["start", "box"]);
    assert_eq!(c.inside("cat /root/file; stat -c %u:%g /root/file"), "10:0");
    c.end();
}

#[test]
fn e2e_cp_with_whole_trees_and_with_a_view_of_the_host() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().display().to_string();
    fs::write(format!("{dir}/file"), "1").expect("write");
    stage.onggi.ok(&["run", "-d", "--name", "view", "--network", "none", "host:", "sleep", "1000"]);
    for round in ["running", "stopped"] {
        stage.onggi.ok(&["cp", &format!("{dir}/file"), &format!("view:/etc/cp-{round}")]);
        stage.onggi.ok(&["cp", &format!("view:/etc/cp-{round}"), &format!("{dir}/{round}")]);
        assert_eq!(fs::read_to_string(format!("{dir}/{round}")).expect("it was copied"), "1");
        assert!(!fs::exists(format!("/etc/cp-{round}")).expect("look"), "the host is as it was");
        stage.onggi.ok(&["stop", "-t", "0", "view"]);
    }
    stage.onggi.ok(&["rm", "view"]);
    stage.onggi.assert_nothing_left();
    let vfs = |words: &[&str]| {
        stage.onggi.ok(&[&["--storage-driver", "vfs", "--root", &format!("{dir}/vfs")], words].concat())
    };
    vfs(&[
        "create",
        "--name",
        "box",
        "--network",
        "none",
        "-v",
        &format!("{dir}/home:/vol"),
        &stage.busybox,
        "cat",
        "/root/file",
    ]);
    vfs(&["cp", &format!("{dir}/file"), "box:/root/file"]);
    vfs(&["cp", &format!("{dir}/file"), "box:/vol/file"]);
    assert!(fs::exists(format!("{dir}/home/file")).expect("look"), "a volume is seen there too");
    assert_eq!(vfs(&["start", "-a", "box"]), "1");
    vfs(&["rm", "box"]);
}
