//! Image archives and directories of ours in the hands of others, and theirs in ours.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use onggi_tests::{
    Onggi,
    image::{Flavour, busybox},
    machine::sh,
};

use crate::{
    docker::Docker,
    support::{Stage, program},
};

fn ok(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("start the program");
    let text = String::from_utf8_lossy(&stdout).trim().to_owned();
    assert!(status.success(), "{command:?}: {text}\n{}", String::from_utf8_lossy(&stderr));
    text
}

/// A store with an image of two layers and a committed third one: hard links, attributes, whiteouts.
fn store() -> (Onggi, String) {
    let onggi = Onggi::new();
    let layout = onggi.dir().join("layout");
    fs::create_dir(&layout).unwrap();
    busybox(Flavour::Oci).write_layout(&layout);
    onggi.ok(&["image", "copy", &format!("oci:{}", layout.display()), "base"]);
    let script = "echo new > /new; /bin/busybox ln /new /new2; rm /etc/not-executable; rm -rf /srv; mkdir /srv; echo z > /srv/z; /bin/busybox chmod 2750 /srv";
    onggi.ok(&["run", "--name", "box1", "--network", "none", "base", "sh", "-c", script]);
    onggi.ok(&["commit", "-c", "CMD [\"cat\", \"/new\"]", "box1", "made:1"]);
    onggi.ok(&["rm", "box1"]);
    let id = onggi.ok(&["images", "-q", "--no-trunc", "made:1"]);
    (onggi, id)
}

fn save(onggi: &Onggi, format: &str) -> String {
    let out = onggi.dir().join(format!("ours-{format}")).to_string_lossy().into_owned();
    onggi.ok(&["save", "--format", format, "-o", &out, "made:1"]);
    out
}

#[test]
fn docker_loads_what_we_save_and_we_load_what_it_saves() {
    let docker = Docker::new();
    let (onggi, id) = store();
    let archive = save(&onggi, "docker-archive");
    assert_eq!(docker.ok(&["load", "-i", &archive]), "Loaded image: made:1");
    assert_eq!(docker.ok(&["images", "-q", "--no-trunc", "made:1"]), id);
    assert_eq!(docker.ok(&["run", "--rm", "--network", "none", "made:1"]), "new");
    let listed = docker.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "made:1",
        "sh",
        "-c",
        "ls /srv; ls /etc/not-executable; stat -c %a /srv; stat -c %h /new2",
    ]);
    assert_eq!(listed, "z\n2750\n2", "whiteouts, modes and hard links");
    let theirs = onggi.dir().join("theirs").to_string_lossy().into_owned();
    docker.ok(&["save", "-o", &theirs, "made:1"]);
    onggi.ok(&["rmi", "-f", "made:1"]);
    assert_eq!(onggi.ok(&["load", "-i", &theirs]), "Loaded image: made:1");
    assert_eq!(onggi.ok(&["images", "-q", "--no-trunc", "made:1"]), id);
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "made:1"]), "new");
    docker.ok(&["rmi", "made:1"]);
    onggi.assert_nothing_left();
}

#[test]
fn podman_loads_what_we_save_and_we_load_what_it_saves() {
    let stage = Stage::new();
    let (onggi, id) = store();
    let dir = stage.dir().display().to_string();
    let podman = |args: &[&str]| {
        let mut command = Command::new(program("podman", "podman"));
        command.args(["--root", &format!("{dir}/root"), "--runroot", &format!("{dir}/run"), "--storage-driver", "vfs"]);
        command.args(["--tmpdir", &format!("{dir}/tmp"), "--cgroup-manager", "cgroupfs"]);
        ok(command.args(args).env("HOME", &dir).current_dir(onggi.dir()))
    };
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let ours = save(&onggi, format);
        let name = Path::new(&ours).file_name().expect("a name").to_string_lossy();
        podman(&["load", "-q", "-i", &name]);
        // A short name, as Docker writes it, is Podman's own; of a directory it takes the path.
        let named = match format {
            "docker-archive" => "localhost/made:1",
            "oci-dir" => "localhost/ours-oci-dir:latest",
            _ => "docker.io/library/made:1",
        };
        if named.starts_with("localhost/") {
            podman(&["tag", named, "docker.io/library/made:1"]);
            podman(&["untag", named, named]);
        }
        assert_eq!(podman(&["images", "-q", "--no-trunc", "docker.io/library/made:1"]), id, "{format}");
        let theirs = format!("{dir}/{format}");
        podman(&["save", "-q", "--format", format, "-o", &theirs, "docker.io/library/made:1"]);
        podman(&["rmi", "docker.io/library/made:1"]);
        onggi.ok(&["rmi", "-f", "made:1"]);
        assert_eq!(onggi.ok(&["load", "-i", &theirs]), "Loaded image: made:1", "{format}");
        assert_eq!(onggi.ok(&["images", "-q", "--no-trunc", "made:1"]), id, "{format}");
        assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "made:1"]), "new", "{format}");
    }
    sh(&format!("umount -l {dir}/root/overlay 2>/dev/null || true"));
    onggi.assert_nothing_left();
}

#[test]
fn skopeo_and_umoci_take_what_we_write_and_we_take_what_they_write() {
    let _stage = Stage::new();
    let (onggi, id) = store();
    let at = |name: &str| onggi.dir().join(name).to_string_lossy().into_owned();
    let skopeo = |args: &[&str]| ok(Command::new(program("skopeo", "skopeo")).args(["--insecure-policy"]).args(args));
    let config = |place: &str| skopeo(&["inspect", "--config", "--raw", place]);
    let ours = [
        ("docker-archive", "docker-archive"),
        ("oci-archive", "oci-archive"),
        ("oci-dir", "oci"),
        ("docker-dir", "dir"),
    ];
    let mut configs = Vec::new();
    for (format, transport) in ours {
        let place = format!("{transport}:{}", save(&onggi, format));
        configs.push(config(&place));
        // A copy reads and verifies every blob.
        for to in ["oci", "dir", "docker-archive"] {
            let target = format!("{to}:{}", at(&format!("copy-{format}-{to}")));
            skopeo(&["copy", "-q", &place, &if to == "dir" { target.clone() } else { format!("{target}:made:1") }]);
            let loaded = onggi.ok(&["load", "-i", &at(&format!("copy-{format}-{to}"))]);
            assert!(loaded.starts_with("Loaded image"), "{loaded}");
            // Between the two families skopeo writes another configuration, which is another image.
            let docker = |name: &str| name.starts_with("docker");
            let converted = to != "dir" && docker(format) != docker(to);
            let loaded = loaded.rsplit(' ').next().expect("a name").trim_start_matches("sha256:");
            let same = onggi.ok(&["images", "-q", "--no-trunc"]).lines().any(|l| l == id);
            let found = onggi.ok(&["image", "inspect", "-f", "{{.Id}}", loaded]);
            assert!(same && (converted || found == id), "{format} {to}: {found}");
        }
    }
    configs.dedup();
    assert_eq!(configs.len(), 1, "every format holds the same configuration");
    let layout = at("ours-oci-dir");
    let bundle = at("bundle");
    let umoci = program("umoci", "umoci");
    ok(Command::new(&umoci).args(["unpack", "--image", &format!("{layout}:docker.io/library/made:1"), &bundle]));
    let root = Path::new(&bundle).join("rootfs");
    assert_eq!(fs::read_to_string(root.join("new2")).unwrap(), "new\n");
    assert!(
        root.join("srv/z").exists() && !root.join("srv/layer").exists() && !root.join("etc/not-executable").exists()
    );
    fs::write(root.join("by-umoci"), "x").unwrap();
    ok(Command::new(&umoci).args(["repack", "--image", &format!("{layout}:next"), &bundle]));
    onggi.ok(&["image", "copy", &format!("oci:{layout}:next"), "next"]);
    assert_eq!(onggi.ok(&["diff", "next"]), "A /by-umoci");
    onggi.assert_nothing_left();
}
