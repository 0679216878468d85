//! The same program for an ordinary user.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use onggi_tests::{
    Onggi, Ran,
    fake_registry::FakeRegistry,
    image::{Compression, Flavour, ImageBuilder, busybox_tree},
    isolated,
    machine::sh,
    tarball::Tarball,
};

/// A user that owns nothing but its home.
const USER: u32 = 12_345;

struct Rootless {
    onggi: Onggi,
    program: PathBuf,
    home: PathBuf,
}

impl Rootless {
    fn new() -> Rootless {
        isolated();
        let onggi = Onggi::new();
        fs::set_permissions(onggi.dir(), PermissionsExt::from_mode(0o755)).expect("open the directory");
        // The workspace may be where only root can go.
        let prefix = onggi.dir().join("prefix");
        let program = prefix.join("bin/onggi");
        let runtime = prefix.join("libexec/onggi/onggi-oci");
        for (from, to) in [(onggi.program(), &program), (onggi.runtime().as_path(), &runtime)] {
            fs::create_dir_all(to.parent().expect("a file is in a directory")).expect("make the prefix");
            fs::copy(from, to).expect("copy a program");
        }
        let home = onggi.dir().join("user");
        fs::create_dir(&home).expect("make the home");
        chown(&home, Some(USER), Some(USER)).expect("give the home away");
        Rootless { onggi, program, home }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let user = USER.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&self.program).args(args);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", self.home.join("run"));
        command.stdin(std::process::Stdio::null());
        self.onggi.finish(&mut command)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout.trim_end().to_owned()
    }
}

#[test]
fn e2e_an_ordinary_user_runs_a_container_on_a_view_of_the_host() {
    let rootless = Rootless::new();
    fs::create_dir(rootless.home.join("run")).expect("make the runtime directory");
    chown(rootless.home.join("run"), Some(USER), Some(USER)).expect("give it away");
    let id = rootless.ok(&["run", "--rm", "--network", "none", "host:", "id"]);
    assert!(id.starts_with("uid=0(root) gid=0(root)"), "{id}");
    assert_eq!(
        rootless.ok(&["run", "--rm", "host:", "sh", "-c", "echo default network > /tmp/x; cat /tmp/x"]),
        "default network"
    );
    let secret = rootless.run(&["run", "--rm", "--network", "none", "host:", "cat", "/etc/shadow"]);
    assert_ne!(secret.code, Some(0), "the host's secrets are as far away as before: {secret}");
    assert_eq!(rootless.run(&["run", "--rm", "--network", "none", "host:", "sh", "-c", "exit 4"]).code, Some(4));
    let detached = rootless.ok(&["run", "-d", "--name", "box", "--network", "none", "host:", "sleep", "100"]);
    assert_eq!(detached.len(), 64);
    assert_eq!(rootless.ok(&["exec", "box", "cat", "/proc/1/comm"]), "sleep");
    rootless.ok(&["stop", "-t", "0", "box"]);
    rootless.ok(&["rm", "box"]);
    assert_eq!(rootless.ok(&["ps", "-a", "-q"]), "");
    assert_left_empty(&rootless.home);
}

fn assert_left_empty(home: &Path) {
    let containers = home.join(".local/share/onggi/containers");
    let left: Vec<_> = fs::read_dir(containers).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn e2e_what_needs_root_is_refused_with_a_hint() {
    let rootless = Rootless::new();
    let ran = rootless.run(&["run", "--rm", "-p", "8080:80", "host:", "true"]);
    onggi_tests::assert_refused(&ran, 125, &["root"]);
}

/// Layers whose owners, marks and set-user-ID programs an ordinary user cannot make as root does.
fn served(registry: &FakeRegistry) -> String {
    let tree = busybox_tree().directory("d/", 0o750).file("d/gone", 0o644, b"x").file("d/stays", 0o4711, b"x");
    // Nobody but root may read Fedora's /etc/shadow, or look into a directory of this mode.
    let tree = tree.file("etc/shadow", 0, b"x").directory("closed/", 0).file("closed/inside", 0o644, b"x");
    let lower = tree.directory("opaque/", 0o755).file("opaque/old", 0o644, b"x").finish();
    let upper = Tarball::new()
        .file("d/.wh.gone", 0o644, b"")
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/new", 0o644, b"y")
        .finish();
    let image =
        ImageBuilder::new(Flavour::Oci).layer(&lower, Compression::Gzip).layer(&upper, Compression::Gzip).build();
    registry.serve("layers", "latest", &image)
}

#[test]
fn e2e_an_ordinary_user_pulls_runs_commits_saves_and_removes_images() {
    let rootless = Rootless::new();
    let registry = FakeRegistry::new();
    let name = served(&registry);
    rootless.ok(&["pull", "-q", &name]);
    let (run, none) = (["run", "--name", "box", "--network", "none"], ["--network", "none"]);
    let change = "ls d opaque; rm d/stays; rm -r opaque; mkdir opaque; echo z > opaque/newer; echo w > d/written";
    let seen = rootless.ok(&[&run[..], &[&name, "sh", "-c", change]].concat());
    assert_eq!(seen, "d:\nstays\n\nopaque:\nnew", "whiteouts and opaque directories of the image hold");
    let changes = rootless.ok(&["diff", "box"]);
    for line in ["D /d/stays", "A /d/written", "A /opaque/newer", "D /opaque/new"] {
        assert!(changes.lines().any(|l| l == line), "{line}: {changes}");
    }
    rootless.ok(&["commit", "box", "changed:1"]);
    let look = "ls d opaque; cat opaque/newer";
    let seen = rootless.ok(&[&["run", "--rm"], &none[..], &["changed:1", "sh", "-c", look]].concat());
    assert_eq!(seen, "d:\nwritten\n\nopaque:\nnewer\nz");
    // What is saved means the same to root.
    let archive = rootless.home.join("changed.tar");
    rootless.ok(&["save", "-o", archive.to_str().expect("a name"), "changed:1"]);
    rootless.onggi.ok(&["load", "-q", "-i", archive.to_str().expect("a name")]);
    let seen = rootless.onggi.ok(&[&["run", "--rm"], &none[..], &["changed:1", "sh", "-c", look]].concat());
    assert_eq!(seen, "d:\nwritten\n\nopaque:\nnewer\nz");
    rootless.onggi.ok(&["rmi", "changed:1"]);
    assert!(rootless.ok(&["system", "check"]).contains("everything is sound"));
    rootless.ok(&["rm", "box"]);
    rootless.ok(&["system", "prune", "-af"]);
    assert_left_empty(&rootless.home);
    let store = rootless.home.join(".local/share/onggi");
    let left = sh(&format!("find {0}/layers {0}/tmp {0}/blobs/sha256 -mindepth 1", store.display()));
    assert_eq!(left, "");
}

#[test]
fn e2e_an_ordinary_user_looks_into_and_copies_from_his_container() {
    let rootless = Rootless::new();
    fs::create_dir(rootless.home.join("run")).expect("make the runtime directory");
    chown(rootless.home.join("run"), Some(USER), Some(USER)).expect("give it away");
    let home = rootless.home.display().to_string();
    rootless.ok(&[
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "none",
        "host:",
        "sh",
        "-c",
        "echo in > /tmp/x; exec sleep 1000",
    ]);
    let top = rootless.ok(&["top", "box", "pid,huser,args"]);
    assert!(top.contains("sleep 1000") && top.contains(&USER.to_string()), "{top}");
    assert!(rootless.ok(&["stats", "--no-stream", "--format", "{{.Name}}", "box"]) == "box");
    rootless.ok(&["rename", "box", "jar"]);
    onggi_tests::eventually("it is written", || {
        (rootless.run(&["exec", "jar", "cat", "/tmp/x"]).stdout == "in\n").then_some(())
    });
    rootless.ok(&["cp", "jar:/tmp/x", &format!("{home}/x")]);
    assert_eq!(fs::read_to_string(rootless.home.join("x")).expect("it was copied"), "in\n");
    rootless.ok(&["cp", &format!("{home}/x"), "jar:/tmp/back"]);
    assert_eq!(rootless.ok(&["exec", "jar", "cat", "/tmp/back"]), "in");
    let pause = rootless.run(&["pause", "jar"]);
    onggi_tests::assert_refused(&pause, 1, &["no control group of its own", "root"]);
    rootless.ok(&["kill", "jar"]);
    let stopped = rootless.run(&["cp", "jar:/tmp/x", &home]);
    onggi_tests::assert_refused(&stopped, 1, &["onggi start jar"]);
    rootless.ok(&["rm", "jar"]);
}
