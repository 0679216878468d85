//! Archives and layouts that lie: what `load`, `import` and `commit` can be made to read, write or execute.

use std::{fs, path::PathBuf, process::Command};

use onggi_tests::{
    Onggi, Ran,
    image::{self, Compression, Flavour, ImageBuilder, busybox_tree, digest},
    isolated,
    machine::sh,
    tarball::{Tarball, kind},
};
use serde_json::{Value, json};

fn file(onggi: &Onggi, name: &str, bytes: &[u8]) -> PathBuf {
    let path = onggi.dir().join(name);
    fs::write(&path, bytes).expect("write a file");
    path
}

fn load(onggi: &Onggi, bytes: &[u8]) -> Ran {
    let path = file(onggi, "archive.tar", bytes);
    onggi.run(&["load", "-i", path.to_str().expect("a name")])
}

/// An archive of Docker's form; `change` may turn it into anything.
fn archive(change: impl FnOnce(&mut Value)) -> Tarball {
    let layer = busybox_tree().finish();
    let built = ImageBuilder::new(Flavour::Docker).layer(&layer, Compression::Plain).build();
    let mut manifest = json!([{ "Config": "c.json", "RepoTags": ["box:1"], "Layers": ["l/layer.tar"] }]);
    change(&mut manifest);
    let manifest = manifest.to_string();
    Tarball::new().file("c.json", 0o644, &built.config.bytes).file("l/layer.tar", 0o644, &layer).file(
        "manifest.json",
        0o644,
        manifest.as_bytes(),
    )
}

/// Names, modes and contents of what must not change.
pub(crate) fn look(dir: &std::path::Path) -> String {
    sh(&format!(
        "cd {} && find . -exec stat -c '%n %a %u %g %h %s' {{}} + | sort && cat $(find . -type f | sort)",
        dir.display()
    ))
}

/// A directory that hostile entries aim at, with a short name.
pub(crate) fn sentinel() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("onggi-s").rand_bytes(4).tempdir_in("/tmp").expect("make a directory");
    fs::write(dir.path().join("old"), "old").expect("fill it");
    fs::create_dir(dir.path().join("dir")).expect("fill it");
    dir
}

#[test]
fn root_cve_2014_9358_an_id_in_an_archive_is_never_a_path() {
    isolated();
    let onggi = Onggi::new();
    let aim = sentinel();
    let before = look(aim.path());
    let up = format!("../../../../../../../..{}/old", aim.path().display());
    let absolute = aim.path().join("old").display().to_string();
    for name in [up.as_str(), absolute.as_str(), "..", ".", "", "l/../../../etc/passwd", "l/layer.tar/../../../x"] {
        for place in ["/0/Config", "/0/Layers/0"] {
            let hostile = archive(|m| *m.pointer_mut(place).expect("a name") = json!(name));
            let ran = load(&onggi, &hostile.finish());
            assert_eq!(ran.code, Some(1), "{place} {name:?}: {ran}");
        }
        // As a tag, and as the name of a member that nobody asks for.
        let ran = load(&onggi, &archive(|m| m[0]["RepoTags"] = json!([format!("{name}:x"), name])).finish());
        assert!(ran.code == Some(0) && ran.stdout.starts_with("Loaded image ID: "), "{name:?}: {ran}");
        onggi.ok(&["image", "prune", "-af"]);
        if !name.is_empty() && name.len() < 100 {
            load(&onggi, &archive(|_| ()).file(name, 0o644, b"bad").finish());
            onggi.ok(&["image", "prune", "-af"]);
        }
    }
    // In a layout: digests of blobs are looked up by name.
    let layout = onggi.dir().join("layout");
    let good = image::busybox(Flavour::Oci);
    for wrong in [format!("sha256:{up}"), "sha256:../../index.json".to_owned(), String::new(), "sha256:AB".to_owned()] {
        good.write_layout(&layout);
        let index = layout.join("index.json");
        let text = fs::read_to_string(&index).expect("read the index").replace(&good.manifest.digest(), &wrong);
        fs::write(&index, text).expect("write the index");
        let ran = onggi.run(&["load", "-i", layout.to_str().expect("a name")]);
        assert_eq!(ran.code, Some(1), "{wrong:?}: {ran}");
    }
    assert_eq!(look(aim.path()), before);
    assert_eq!(onggi.ok(&["images", "-q"]), "");
}

#[test]
fn root_cve_2014_9358_benign_names_of_members_may_have_any_form_inside_the_archive() {
    isolated();
    let onggi = Onggi::new();
    let layer = busybox_tree().finish();
    let built = ImageBuilder::new(Flavour::Docker).layer(&layer, Compression::Plain).build();
    let manifest =
        json!([{ "Config": "./x/../c.json", "RepoTags": ["box:1"], "Layers": ["a/./b//l.tar"] }]).to_string();
    let odd = Tarball::new().file("./c.json", 0o644, &built.config.bytes).file("a/b/l.tar", 0o644, &layer).file(
        "manifest.json",
        0o644,
        manifest.as_bytes(),
    );
    let ran = load(&onggi, &odd.finish());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "Loaded image: box:1\n"), "{ran}");
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "box:1", "echo", "runs"]), "runs");
}

/// Layers that want to make or change directories outside, as the crate `tar` let them.
fn outward(aim: &std::path::Path) -> Vec<Tarball> {
    let out = aim.display().to_string();
    vec![
        Tarball::new().symlink("l", &out).directory("l/new/", 0o777),
        Tarball::new().symlink("l", &out).directory("l/dir/", 0o777),
        Tarball::new().symlink("l", &out).file("l/new/deep/file", 0o644, b"x"),
        Tarball::new().directory("d/", 0o755).symlink("d/l", &out).directory("d/l/dir/", 0o777).file(
            "d/l/dir/x",
            0o644,
            b"x",
        ),
        Tarball::new().symlink("a", "b").symlink("b", &out).directory("a/new/", 0o755),
        Tarball::new().directory("x/", 0o755).symlink("x", &out).directory("x/new/", 0o777),
        Tarball::new().symlink("l", &out).hard_link("l/hard", "l/old"),
        Tarball::new().symlink("l", &out).entry(kind::SYMLINK, "l/new", 0o777, "/etc", &[]),
        Tarball::new().symlink("l", &out).entry(b'6', "l/fifo", 0o666, "", &[]),
        Tarball::new().symlink("l", &out).file("l/.wh.old", 0o644, b"").file("l/.wh..wh..opq", 0o644, b""),
    ]
}

#[test]
fn root_cve_2021_38511_2018_20990_import_and_load_make_no_directory_outside() {
    isolated();
    let onggi = Onggi::new();
    let aim = sentinel();
    let before = look(aim.path());
    for (number, tar) in outward(aim.path()).into_iter().enumerate() {
        let layer = tar.finish();
        let path = file(&onggi, "tree.tar", &layer);
        let ran = onggi.run(&["import", path.to_str().expect("a name"), "box:1"]);
        assert!(matches!(ran.code, Some(0 | 1)) && !ran.stderr.contains("panicked"), "{number}: {ran}");
        let built = ImageBuilder::new(Flavour::Docker).layer(&layer, Compression::Plain).build();
        let manifest = json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["l.tar"] }]).to_string();
        let whole = Tarball::new().file("c.json", 0o644, &built.config.bytes).file("l.tar", 0o644, &layer);
        let ran = load(&onggi, &whole.file("manifest.json", 0o644, manifest.as_bytes()).finish());
        assert!(matches!(ran.code, Some(0 | 1)) && !ran.stderr.contains("panicked"), "{number}: {ran}");
        assert_eq!(look(aim.path()), before, "{number}");
        onggi.ok(&["image", "prune", "-af"]);
    }
}

#[test]
fn root_cve_2021_38511_2018_20990_benign_links_inside_of_an_archive_are_followed_inside() {
    isolated();
    let onggi = Onggi::new();
    let tar = busybox_tree().directory("usr/", 0o755).directory("usr/lib/", 0o755).symlink("lib", "/usr/lib");
    let path = file(&onggi, "tree.tar", &tar.directory("lib/x/", 0o750).file("lib/x/f", 0o644, b"inside\n").finish());
    onggi.ok(&["import", path.to_str().expect("a name"), "box:1"]);
    let script = "cat /usr/lib/x/f; stat -c %a /usr/lib/x";
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "box:1", "sh", "-c", script]), "inside\n750");
}

#[test]
fn root_cve_2023_25153_a_document_without_end_is_not_read_into_memory() {
    isolated();
    let onggi = Onggi::new();
    // A sparse file: two gigabytes that take no room here; the same size as a member of a layout.
    let header = |name: &str, size: u64| {
        let whole = Tarball::new().file(name, 0o644, b"").finish();
        let mut header = whole[..512].to_vec();
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    };
    for name in ["manifest.json", "index.json"] {
        let path = onggi.dir().join("huge.tar");
        let huge = fs::File::create(&path).expect("make the archive");
        std::os::unix::fs::FileExt::write_all_at(&huge, &header(name, 2 << 30), 0).expect("write");
        huge.set_len((2 << 30) + 2048).expect("set the length");
        let command = onggi.command(&["load", "-i", path.to_str().expect("a name")]);
        let mut limited = Command::new("prlimit");
        limited.arg("--as=1073741824").arg(command.get_program()).args(command.get_args());
        limited.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        let ran = onggi.finish(&mut limited);
        assert!(ran.code == Some(1) && ran.stderr.contains("larger than the limit"), "{name}: {ran}");
    }
    // A configuration that is too long, and one that is nested too deeply.
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(5 << 20));
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for config in [long.as_bytes(), deep.as_bytes(), b"{}", b"null", b"\xff\xfe"] {
        let manifest = json!([{ "Config": "c.json", "RepoTags": ["box:1"], "Layers": [] }]).to_string();
        let tar = Tarball::new().file("c.json", 0o644, config).file("manifest.json", 0o644, manifest.as_bytes());
        let ran = load(&onggi, &tar.finish());
        assert!(!ran.stderr.contains("panicked") && ran.code.is_some(), "{ran}");
        onggi.ok(&["image", "prune", "-af"]);
    }
}

#[test]
fn root_cve_2023_25153_benign_a_long_configuration_is_loaded() {
    isolated();
    let onggi = Onggi::new();
    let layer = busybox_tree().finish();
    let labels: Value =
        (0..2000).map(|i| (format!("label{i}"), json!("x".repeat(100)))).collect::<serde_json::Map<_, _>>().into();
    let built = ImageBuilder::new(Flavour::Docker).layer(&layer, Compression::Plain).config("Labels", labels).build();
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["box:1"], "Layers": ["l.tar"] }]).to_string();
    let tar = Tarball::new().file("c.json", 0o644, &built.config.bytes).file("l.tar", 0o644, &layer);
    let ran = load(&onggi, &tar.file("manifest.json", 0o644, manifest.as_bytes()).finish());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "Loaded image: box:1\n"), "{ran}");
}

/// A layout whose index and manifest carry these annotations.
fn annotated(onggi: &Onggi, annotations: &Value) -> PathBuf {
    let layout = onggi.dir().join("annotated");
    let _ = fs::remove_dir_all(&layout);
    let mut built = image::busybox(Flavour::Oci);
    let mut manifest: Value = serde_json::from_slice(&built.manifest.bytes).expect("JSON");
    manifest["annotations"] = annotations.clone();
    manifest["layers"][0]["annotations"] = annotations.clone();
    manifest["config"]["annotations"] = annotations.clone();
    built.manifest.bytes = manifest.to_string().into_bytes();
    built.write_layout(&layout);
    let index = layout.join("index.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&index).expect("read the index")).expect("JSON");
    document["manifests"][0]["annotations"] = annotations.clone();
    document["annotations"] = annotations.clone();
    fs::write(&index, document.to_string()).expect("write the index");
    layout
}

#[test]
fn root_cve_2025_62725_annotations_name_no_files() {
    isolated();
    let onggi = Onggi::new();
    let aim = sentinel();
    let before = look(aim.path());
    let out = aim.path().join("old").display().to_string();
    for path in [out.clone(), format!("../../../../../../../..{out}"), "../x".to_owned(), "a\u{0}b".to_owned()] {
        let keys = [
            "org.opencontainers.image.title",
            "org.opencontainers.image.ref.name",
            "io.containerd.image.name",
            "com.docker.compose.file",
            "com.docker.compose.envfile",
            "org.cncf.model.filepath",
        ];
        let annotations: Value =
            keys.iter().map(|k| ((*k).to_owned(), json!(path))).collect::<serde_json::Map<_, _>>().into();
        let layout = annotated(&onggi, &annotations);
        let ran = onggi.run(&["load", "-i", layout.to_str().expect("a name")]);
        assert!(matches!(ran.code, Some(0 | 1)) && !ran.stderr.contains("panicked"), "{path:?}: {ran}");
        let names = onggi.ok(&["images", "--format", "{{.Repository}}"]);
        assert!(names.lines().all(|name| name == "<none>"), "{path:?} became a name: {names}");
        let target = onggi.dir().join("copy");
        let (from, to) = (format!("oci:{}", layout.display()), format!("dir:{}", target.display()));
        onggi.run(&["image", "copy", &from, &to]);
        onggi.ok(&["image", "prune", "-af"]);
        assert_eq!(look(aim.path()), before, "{path:?}");
        let _ = fs::remove_dir_all(target);
    }
}

#[test]
fn root_cve_2025_62725_benign_an_annotation_names_the_image() {
    isolated();
    let onggi = Onggi::new();
    let annotations =
        json!({ "org.opencontainers.image.ref.name": "example.org/box:2", "org.opencontainers.image.title": "A box" });
    let layout = annotated(&onggi, &annotations);
    onggi.ok(&["load", "-i", layout.to_str().expect("a name")]);
    assert_eq!(onggi.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]), "example.org/box:2");
}

#[test]
fn root_cve_2014_9357_2026_41567_load_import_and_commit_execute_nothing_whatever_the_compression() {
    isolated();
    let onggi = Onggi::new();
    let trojan = b"#!/bin/sh\ntouch /tmp/onggi-trojan-ran\n";
    let mut tree = busybox_tree();
    for name in ["gzip", "unpigz", "xz", "unxz", "bzip2", "zstd", "tar"] {
        tree =
            tree.file(&format!("usr/bin/{name}"), 0o755, trojan).file(&format!("usr/local/bin/{name}"), 0o755, trojan);
    }
    let plain = file(&onggi, "tree.tar", &tree.finish());
    let traced = |args: &[&str]| {
        let (log, command) = (onggi.dir().join("execve"), onggi.command(args));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=execve,execveat", "-o"]).arg(&log).arg(command.get_program());
        strace.args(command.get_args()).env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        let ran = onggi.finish(&mut strace);
        assert_eq!(ran.code, Some(0), "{ran}");
        let log = fs::read_to_string(&log).expect("strace wrote its log");
        assert_eq!(log.matches("execve").count(), 1, "{args:?}: only onggi itself: {log}");
    };
    for tool in ["cat", "gzip -1 -c", "zstd -1 -c", "xz -0 -c", "bzip2 -1 -c"] {
        let packed = onggi.dir().join("packed");
        sh(&format!("{tool} < {} > {}", plain.display(), packed.display()));
        traced(&["import", packed.to_str().expect("a name"), "box:1"]);
        let saved = onggi.dir().join("saved.tar");
        onggi.ok(&["save", "-o", saved.to_str().expect("a name"), "box:1"]);
        sh(&format!("{tool} < {} > {}", saved.display(), packed.display()));
        onggi.ok(&["rmi", "box:1"]);
        traced(&["load", "-i", packed.to_str().expect("a name")]);
    }
    onggi.ok(&["run", "--name", "box", "--network", "none", "box:1", "touch", "/new"]);
    traced(&["commit", "--pause=false", "box", "made:1"]);
    onggi.ok(&["rm", "box"]);
    assert!(!std::path::Path::new("/tmp/onggi-trojan-ran").exists());
}

#[test]
fn root_cve_2014_9357_2026_41567_benign_programs_of_the_image_run_inside_of_it() {
    isolated();
    let onggi = Onggi::new();
    let tree = busybox_tree().file("usr/bin/xz", 0o755, b"#!/bin/sh\necho inside > /ran; cat /ran\n");
    let path = file(&onggi, "tree.tar", &tree.finish());
    onggi.ok(&["import", path.to_str().expect("a name"), "box:1"]);
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "box:1", "xz"]), "inside");
}

#[test]
fn root_ghsa_3cv2_h65g_fgmm_2025_62518_import_reads_an_archive_as_gnu_tar_does_or_not_at_all() {
    isolated();
    let onggi = Onggi::new();
    // The header says that the directory has a body, in which another archive hides.
    let hidden = Tarball::new().file("evil", 0o644, b"bad").finish();
    let mut tar = Tarball::new().entry(kind::DIRECTORY, "d/", 0o755, "", &hidden).finish();
    let path = file(&onggi, "tree.tar", &tar);
    let ran = onggi.run(&["import", path.to_str().expect("a name"), "box:1"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    // A PAX header that contradicts the entry's size.
    let record = b"12 size=9\n";
    let body = Tarball::new().file("inner", 0o644, b"bad").finish();
    tar = Tarball::new().entry(b'x', "PaxHeaders/x", 0o644, "", &record[..10]).file("f", 0o644, &body).finish();
    let path = file(&onggi, "tree.tar", &tar);
    let ran = onggi.run(&["import", path.to_str().expect("a name"), "box:1"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert_eq!(onggi.ok(&["images", "-q"]), "");
}

#[test]
fn root_ghsa_3cv2_h65g_fgmm_2025_62518_benign_an_archive_inside_of_an_archive_is_a_file() {
    isolated();
    let onggi = Onggi::new();
    let inner = Tarball::new().file("evil", 0o644, b"bad").finish();
    let path = file(&onggi, "tree.tar", &busybox_tree().file("inner.tar", 0o644, &inner).finish());
    onggi.ok(&["import", path.to_str().expect("a name"), "box:1"]);
    let sum = onggi.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "box:1",
        "sh",
        "-c",
        "ls /evil 2>/dev/null; cat /inner.tar | wc -c",
    ]);
    assert_eq!(sum, inner.len().to_string());
    assert!(digest(&inner).starts_with("sha256:"));
}
