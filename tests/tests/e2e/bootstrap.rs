//! `rootfs bootstrap debian`, from an archive of one package that the test makes itself: no network is needed.

use std::{fs, path::Path, process::Stdio};

use onggi_tests::{Onggi, image::digest, isolated, machine::sh};

/// An archive with the package `onggi-hello`; a line of sources.list for it.
fn archive(dir: &Path) -> String {
    let (tree, repository) = (dir.join("package"), dir.join("repository"));
    let busybox = "/bin/busybox";
    sh(&format!(
        "mkdir -p {0}/DEBIAN {0}/bin {1}; cp {busybox} {0}/bin/busybox; ln -s busybox {0}/bin/sh
         printf '#!/bin/sh\\necho hello from a package\\n' > {0}/bin/hello; chmod 755 {0}/bin/hello
         ln -s busybox {0}/bin/bash",
        tree.display(),
        repository.display()
    ));
    let control = "Package: onggi-hello\nVersion: 1.0\nArchitecture: all\nMaintainer: Test <test@example.org>\n\
                   Description: says hello\n";
    fs::write(tree.join("DEBIAN/control"), control).expect("write the package's description");
    let package = repository.join("onggi-hello_1.0_all.deb");
    sh(&format!("dpkg-deb --root-owner-group --build {} {}", tree.display(), package.display()));
    let bytes = fs::read(&package).expect("read the package");
    let sum = digest(&bytes).replace("sha256:", "");
    let entry = format!("{control}Filename: ./onggi-hello_1.0_all.deb\nSize: {}\nSHA256: {sum}\n\n", bytes.len());
    fs::write(repository.join("Packages"), entry).expect("write the archive's index");
    format!("deb [trusted=yes] copy:{} ./", repository.display())
}

#[test]
fn e2e_bootstrap_makes_the_same_image_of_the_same_packages_and_it_runs() {
    isolated();
    let onggi = Onggi::new();
    let line = archive(onggi.dir());
    let options = ["--quiet", "--variant=extract", "--include=onggi-hello", "--mirror", &line];
    let make = |more: &[&str]| onggi.ok(&[&["rootfs", "bootstrap", "debian"][..], &options, more].concat());
    let words = make(&["--tag", "deb:1", "--explain"]);
    assert!(words.contains("run /usr/bin/mmdebstrap --variant=extract"), "{words}");
    assert!(words.ends_with("make an image of one layer and name it docker.io/library/deb:1"), "{words}");
    assert!(make(&["--tag", "deb:1", "--explain=sh"]).ends_with("onggi import - docker.io/library/deb:1"));
    assert_eq!(onggi.ok(&["images", "-q"]), "", "nothing was made for the explanation");
    let id = make(&["--tag", "deb:1"]);
    assert!(id.starts_with("sha256:"), "{id}");
    let created = onggi.ok(&["image", "inspect", "-f", "{{.Created}}", "deb:1"]);
    assert!(created.starts_with("1970-01-01T00:00:00"), "{created}");
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "deb:1", "hello"]), "hello from a package");
    let leftovers = "find / -xdev -name resolv.conf -size +0; ls /var/lib/apt/lists";
    assert_eq!(
        onggi.ok(&["run", "--rm", "--network", "host", "deb:1", "sh", "-c", leftovers]).matches("Packages").count(),
        0
    );
    assert_eq!(make(&["--tag", "deb:2"]), id, "the same packages make the same image");
    assert!(onggi.ok(&["system", "check"]).contains("everything is sound"));
    onggi.ok(&["rmi", "deb:1", "deb:2"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_bootstrap_that_fails_says_why_and_leaves_nothing() {
    isolated();
    let onggi = Onggi::new();
    let line = archive(onggi.dir());
    let base = ["rootfs", "bootstrap", "debian", "--variant=extract", "--mirror", &line];
    let unknown = onggi.run(&[&base[..], &["--include=onggi-nothing", "--tag", "deb:1"]].concat());
    assert_eq!(unknown.code, Some(1), "{unknown}");
    assert!(unknown.stderr.contains("Unable to locate package onggi-nothing"), "the tool's own words: {unknown}");
    assert!(unknown.stderr.contains("onggi: /usr/bin/mmdebstrap failed (exit status"), "{unknown}");
    assert_eq!(onggi.ok(&["images", "-q"]), "");
    let left = sh(&format!(
        "find {0}/layers {0}/tmp {0}/blobs/sha256 -mindepth 1 2>/dev/null || true",
        onggi.root().display()
    ));
    assert_eq!(left, "");
    let filled = onggi.dir().join("filled");
    fs::create_dir_all(filled.join("x")).expect("make a directory");
    let refused = onggi.run(&[&base[..], &[filled.to_str().expect("a name")]].concat());
    assert!(refused.code == Some(1) && refused.stderr.contains("the directory is not empty"), "{refused}");
    for bad in [&["--suite=-x"][..], &["--variant=tiny"], &["--include=-o"], &["--mirror=--x"], &["--arch=a,b"]] {
        let refused = onggi.run(&[&["rootfs", "bootstrap", "debian", "--tag", "x"][..], bad].concat());
        assert!(refused.code != Some(0) && refused.stderr.contains("hint:"), "{refused}");
    }
    // A machine without the tool is told which package it is in.
    let missing = onggi.run(&["rootfs", "bootstrap", "debian", "--tool", "debootstrap", "--tag", "x", "--explain"]);
    if !Path::new("/usr/sbin/debootstrap").exists() {
        assert!(missing.code == Some(1) && missing.stderr.contains("apt-get install debootstrap"), "{missing}");
    }
    sh("mount -t tmpfs none /usr/bin 2>/dev/null");
    let missing = onggi.run(&["rootfs", "bootstrap", "debian", "--tool", "mmdebstrap", "--tag", "x"]);
    rustix::mount::unmount("/usr/bin", rustix::mount::UnmountFlags::empty()).expect("unmount");
    assert!(
        missing.code == Some(1) && missing.stderr.contains("hint: install the package: apt-get install mmdebstrap"),
        "{missing}"
    );
    onggi.assert_nothing_left();
}

/// Stands for debootstrap in this test's mount namespace: a tree of busybox, with what differs from run to run.
fn fake_debootstrap(body: &str) {
    let made = r#"#!/bin/sh
set -e
case "$*" in --variant=minbase\ stable\ /*\ http://deb.debian.org/debian) ;; *) echo "E: $*" >&2; exit 3 ;; esac
mkdir -p "$3"/bin "$3"/etc "$3"/proc "$3"/var/log/apt "$3"/var/lib/apt/lists/partial "$3"/var/cache/apt/archives
cp /bin/busybox "$3"/bin/busybox; ln -s busybox "$3"/bin/sh; ln -s busybox "$3"/bin/cat
echo 12.0 > "$3"/etc/debian_version; uname -n > "$3"/etc/hostname; date +%N > "$3"/var/log/bootstrap.log
date +%N > "$3"/var/log/apt/term.log; date +%N > "$3"/var/lib/apt/lists/x; date > "$3"/var/cache/apt/archives/x.deb
"#;
    sh("mount -t tmpfs none /usr/local/sbin");
    let path = Path::new("/usr/local/sbin/debootstrap");
    fs::write(path, format!("{made}{body}")).expect("write the program");
    sh(&format!("chmod 755 {}", path.display()));
}

#[test]
fn e2e_bootstrap_by_debootstrap_makes_the_same_image_twice_and_it_runs() {
    isolated();
    let onggi = Onggi::new();
    fake_debootstrap("echo I: a message\n");
    let base = ["rootfs", "bootstrap", "debian", "--tool", "debootstrap", "--tag"];
    let make = |more: &[&str]| onggi.ok(&[&base[..], more].concat());
    let id = make(&["deb:1"]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(make(&["deb:2", "--quiet"]), id, "the same packages make the same image");
    let script = "cat /etc/debian_version; cd /; busybox stat -c %a .; cd /var; busybox find log lib cache -type f; \
                  busybox ls -d lib/apt/lists log/apt";
    let seen = onggi.ok(&["run", "--rm", "--network", "none", "deb:1", "sh", "-c", script]);
    assert_eq!(seen, "12.0\n755\nlib/apt/lists\nlog/apt", "nothing of the run is in it");
    let refused = onggi.run(&[&base[..], &["x", "--mirror", "http://a", "--mirror", "http://b"]].concat());
    assert!(refused.code == Some(1) && refused.stderr.contains("one mirror"), "{refused}");
    fake_debootstrap("echo E: it broke; exit 1\n");
    let failed = onggi.run(&[&base[..], &["deb:3"]].concat());
    assert!(failed.code == Some(1) && failed.stderr.contains("E: it broke"), "{failed}");
    onggi.ok(&["rmi", "deb:1", "deb:2"]);
    assert_eq!(sh(&format!("ls {}/tmp", onggi.root().display())), "");
    sh("umount /usr/local/sbin; umount /usr/local/sbin");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_killed_bootstrap_takes_its_tool_along_and_is_collected() {
    isolated();
    let onggi = Onggi::new();
    let (pid, root) = (onggi.dir().join("pid"), onggi.root().display().to_string());
    fake_debootstrap(&format!(
        "mount -t tmpfs none \"$3\"/proc\necho $$ > {0}.new; mv {0}.new {0}\nexec sleep 1000\n",
        pid.display()
    ));
    let mut command = onggi.command(&["rootfs", "bootstrap", "debian", "--tool", "debootstrap", "--tag", "deb:1"]);
    let mut child = command.stderr(Stdio::null()).spawn().expect("onggi starts");
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        for _ in 0..600 {
            if done() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{what} did not happen");
    };
    wait("the tool's start", &|| pid.exists());
    assert_eq!(sh(&format!("findmnt -rno TARGET | grep -c {root}/tmp || true")), "0\n", "its mounts are its own");
    let there = sh(&format!("ls {root}/tmp"));
    assert!(there.starts_with("bootstrap-"), "{there}");
    // Somebody else's garbage is collected meanwhile; this is none.
    onggi.ok(&["system", "prune", "-f"]);
    assert_eq!(sh(&format!("ls {root}/tmp")), there);
    child.kill().expect("kill onggi");
    child.wait().expect("it ends");
    let tool = format!("/proc/{}", fs::read_to_string(&pid).expect("a number").trim());
    wait("the tool's end", &|| !Path::new(&tool).exists());
    onggi.ok(&["system", "prune", "-f"]);
    assert_eq!(sh(&format!("ls {root}/tmp")), "");
    sh("umount /usr/local/sbin");
    onggi.assert_nothing_left();
}

#[test]
#[ignore = "fetches whole Debians; run with --long"]
fn e2e_a_bootstrapped_debian_runs_from_a_directory_and_from_an_image() {
    // Debian's archive is outside: this test stays in the host's own network.
    let onggi = Onggi::new();
    let dir = onggi.dir().join("debian");
    let text = dir.to_str().expect("a name");
    let version = ["cat", "/etc/debian_version"];
    let in_dir = |dir: &str| {
        let from = format!("rootfs:{dir}");
        onggi.ok(&[&["run", "--rm", "--network", "none", &from][..], &version].concat())
    };
    let mut base = vec!["rootfs", "bootstrap", "debian", "--suite=bookworm", "--include=busybox-static"];
    base.push("--variant=essential");
    assert_eq!(onggi.ok(&[&base[..], &[text]].concat()), text);
    assert!(in_dir(text).starts_with("12"));
    onggi.ok(&[&base[..], &["--tag", "deb:12"]].concat());
    assert!(onggi.ok(&["run", "--rm", "--network", "none", "deb:12", "dpkg", "-l", "busybox-static"]).contains("ii"));
    onggi.ok(&["rmi", "deb:12"]);
    // The other tool, and the same image twice.
    base.pop();
    base.push("--tool=debootstrap");
    let other = onggi.dir().join("other");
    let text = other.to_str().expect("a name");
    assert_eq!(onggi.ok(&[&base[..], &[text]].concat()), text);
    assert!(in_dir(text).starts_with("12"));
    let first = onggi.ok(&[&base[..], &["--tag", "deb:1", "--quiet"]].concat());
    let second = onggi.ok(&[&base[..], &["--tag", "deb:2", "--quiet"]].concat());
    assert_eq!(first, second, "the same packages make the same image");
    let installed = "dpkg -l busybox-static && apt-get check && ls /var/lib/apt/lists /var/cache/apt/archives";
    let seen = onggi.ok(&["run", "--rm", "--network", "none", "deb:1", "sh", "-c", installed]);
    assert!(seen.contains("ii") && !seen.contains(".deb"), "{seen}");
    onggi.ok(&["rmi", "deb:1", "deb:2"]);
}
