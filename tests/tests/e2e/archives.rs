//! Archives of images that lie: each beside the honest one that they were made from.

use std::fs;

use onggi_tests::{
    Ran,
    image::{Compression, Flavour, ImageBuilder, busybox_tree, digest},
    machine::sh,
    tarball::{Tarball, kind},
};
use serde_json::{Value, json};

use crate::Stage;

/// The parts of an archive as `docker save` writes them.
struct Parts {
    config: Vec<u8>,
    layer: Vec<u8>,
    manifest: Value,
}

fn parts() -> Parts {
    let layer = busybox_tree().finish();
    let image = ImageBuilder::new(Flavour::Docker).layer(&layer, Compression::Plain).build();
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["box:1"], "Layers": ["a/layer.tar"] }]);
    Parts { config: image.config.bytes, layer, manifest }
}

fn archive(parts: &Parts) -> Tarball {
    Tarball::new().file("config.json", 0o644, &parts.config).file("a/layer.tar", 0o644, &parts.layer).file(
        "manifest.json",
        0o644,
        parts.manifest.to_string().as_bytes(),
    )
}

fn load(stage: &Stage, bytes: &[u8]) -> Ran {
    let file = stage.onggi.dir().join("archive.tar");
    fs::write(&file, bytes).expect("write the archive");
    stage.onggi.run(&["load", "-i", &file.to_string_lossy()])
}

/// Refused with these words, and nothing of it is in the store.
#[track_caller]
fn refused(stage: &Stage, what: &str, bytes: &[u8], words: &str) {
    let ran = load(stage, bytes);
    assert_eq!(ran.code, Some(1), "{what}: {ran}");
    assert!(ran.stderr.contains(words), "{what}: {ran}");
    assert!(!ran.stderr.contains("panicked"), "{what}: {ran}");
    assert_eq!(stage.onggi.ok(&["images", "-q"]), "", "{what}");
    let left = sh(&format!("ls {0}/layers {0}/tmp; ls {0}/blobs/sha256", stage.onggi.root().display()));
    let left: Vec<&str> = left.lines().filter(|l| !l.is_empty() && !l.ends_with(':')).collect();
    assert!(left.is_empty(), "{what}: {left:?}");
}

#[test]
fn e2e_hostile_archives_are_refused_and_leave_nothing() {
    let stage = Stage::new();
    let honest = parts();
    let with = |change: &dyn Fn(&mut Parts)| {
        let mut changed = parts();
        change(&mut changed);
        archive(&changed).finish()
    };
    let config = |name: &str| with(&|p| p.manifest[0]["Config"] = json!(name));
    let layer = |name: &str| with(&|p| p.manifest[0]["Layers"] = json!([name]));
    for outside in ["../config.json", "/etc/passwd", "a/../../etc/passwd"] {
        refused(&stage, outside, &config(outside), "points outside of the archive");
        refused(&stage, outside, &layer(outside), "points outside of the archive");
    }
    refused(&stage, "no such layer", &layer("b/layer.tar"), "is not in it");
    let links = |flag, target| {
        Tarball::new()
            .file("config.json", 0o644, &honest.config)
            .entry(flag, "a/layer.tar", 0o777, target, &[])
            .file("manifest.json", 0o644, honest.manifest.to_string().as_bytes())
            .finish()
    };
    for flag in [kind::SYMLINK, kind::HARD_LINK] {
        refused(&stage, "a link out", &links(flag, "/etc/passwd"), "points outside of the archive");
        refused(&stage, "a link up", &links(flag, "../../etc/passwd"), "points outside of the archive");
    }
    refused(&stage, "a link to itself", &links(kind::SYMLINK, "layer.tar"), "no regular file");
    refused(&stage, "a device", &links(b'3', ""), "no regular file");
    let twice = archive(&honest).file("a/layer.tar", 0o644, b"other").finish();
    refused(&stage, "a layer twice", &twice, "is twice in the archive");
    let twice = archive(&honest).file("./manifest.json", 0o644, b"[]").finish();
    refused(&stage, "two manifests", &twice, "is twice in the archive");
    let more = with(&|p| p.manifest[0]["Layers"] = json!(["a/layer.tar", "a/layer.tar"]));
    refused(&stage, "more layers than diff ids", &more, "names 2 layers");
    refused(&stage, "fewer", &with(&|p| p.manifest[0]["Layers"] = json!([])), "names 0 layers");
    refused(&stage, "another layer", &with(&|p| p.layer = Tarball::new().finish()), "expected sha256:");
    let bad_name = with(&|p| p.manifest[0]["RepoTags"] = json!(["../../x:1", "A B"]));
    let ran = load(&stage, &bad_name);
    assert_eq!(ran.code, Some(0), "what is no name names nothing: {ran}");
    assert!(ran.stdout.starts_with("Loaded image ID: "), "{ran}");
    stage.onggi.ok(&["rmi", ran.stdout.trim().rsplit(':').next().expect("an id")]);
    let huge = Tarball::new().file("manifest.json", 0o644, &vec![b' '; 5 << 20]).finish();
    refused(&stage, "a huge manifest", &huge, "is larger than the limit");
    refused(&stage, "no JSON", &Tarball::new().file("manifest.json", 0o644, b"{").finish(), "is malformed");
    refused(&stage, "no images", &Tarball::new().file("x", 0o644, b"x").finish(), "holds no images");
    refused(&stage, "no archive", b"not a tar archive at all", "is not a valid archive");
    let cut = archive(&honest).finish();
    refused(&stage, "cut off", &cut[..cut.len() / 2], "is not a valid archive");
    let escape = Tarball::new().symlink("out", "/").file("out/../../escaped", 0o644, b"x").finish();
    let hostile = ImageBuilder::new(Flavour::Docker).layer(&escape, Compression::Plain).build();
    let hostile = with(&|p| (p.layer, p.config) = (escape.clone(), hostile.config.bytes.clone()));
    refused(&stage, "a layer that leaves its directory", &hostile, "refused layer entry");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_odd_but_honest_archives_are_loaded() {
    let stage = Stage::new();
    let honest = parts();
    let runs = |what: &str, bytes: &[u8]| {
        let ran = load(&stage, bytes);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "Loaded image: box:1\n"), "{what}: {ran}");
        assert_eq!(stage.onggi.ok(&["run", "--rm", "--network", "none", "box:1", "echo", "runs"]), "runs", "{what}");
        stage.onggi.ok(&["rmi", "box:1"]);
    };
    runs("as it is", &archive(&honest).finish());
    // Layers that are the same are links to each other in archives of older versions of Docker.
    let linked = Tarball::new()
        .directory("b/", 0o755)
        .file("b/layer.tar", 0o644, &honest.layer)
        .symlink("a/layer.tar", "../b/layer.tar")
        .file("./config.json", 0o644, &honest.config)
        .file("manifest.json", 0o644, honest.manifest.to_string().as_bytes())
        .file("repositories", 0o644, b"{}");
    runs("a layer that is a link", &linked.finish());
    let zipped = onggi_tests::image::compress(&honest.layer, Compression::Gzip);
    let gzip = Parts { config: honest.config.clone(), layer: zipped, manifest: honest.manifest.clone() };
    runs("a compressed layer", &archive(&gzip).finish());
    let unrelated = archive(&honest).symlink("escape", "/etc").file("x", 0o644, b"1").file("x", 0o644, b"2");
    runs("members that nobody asks for", &unrelated.finish());
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_layout_with_a_wrong_blob_is_refused() {
    let stage = Stage::new();
    let image = onggi_tests::image::busybox(Flavour::Oci);
    let dir = stage.onggi.dir().join("layout");
    fs::create_dir(&dir).expect("make a directory");
    image.write_layout(&dir);
    let place = format!("oci:{}", dir.display());
    stage.onggi.ok(&["image", "copy", &place, "good"]);
    stage.onggi.ok(&["rmi", "good"]);
    let blob = |bytes: &[u8]| dir.join("blobs/sha256").join(&digest(bytes)[7..]);
    let layer = blob(&image.layers[0].bytes);
    let mut other = image.layers[0].bytes.clone();
    other[100] ^= 1;
    fs::write(&layer, &other).expect("damage the layer");
    for args in [vec!["image", "copy", &place, "bad"], vec!["load", "-i", dir.to_str().unwrap()]] {
        let ran = stage.onggi.run(&args);
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stderr.contains("expected sha256:"), "{ran}");
    }
    fs::remove_file(&layer).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &layer).unwrap();
    let ran = stage.onggi.run(&["image", "copy", &place, "bad"]);
    assert_eq!(ran.code, Some(1), "a link is not followed: {ran}");
    assert_eq!(stage.onggi.ok(&["images", "-q"]), "");
}
