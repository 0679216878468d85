//! Images and registries that are wrong or hostile. Each hostile layer has a benign twin that must work.

use std::{fs, path::Path};

use onggi_tests::{
    assert_refused,
    fake_registry::Fault,
    image::{Blob, Compression, Flavour, Image, ImageBuilder, busybox_tree},
    tarball::{Tarball, kind},
};

use crate::Stage;

fn with_layer(top: &[u8]) -> Image {
    let builder = ImageBuilder::new(Flavour::Oci).layer(&busybox_tree().finish(), Compression::Gzip);
    builder.layer(top, Compression::Gzip).build()
}

#[test]
fn e2e_an_unknown_image_is_refused_with_its_name() {
    let stage = Stage::new();
    let name = format!("{}:none", stage.registry.name("no-such-image"));
    let ran = stage.onggi.run(&["run", "--rm", &name, "true"]);
    assert_refused(&ran, 125, &["no-such-image"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_registry_that_is_down_is_named() {
    let stage = Stage::new();
    let ran = stage.onggi.run(&["run", "--rm", "127.0.0.1:9/image", "true"]);
    assert_refused(&ran, 125, &["127.0.0.1:9"]);
    stage.registry.break_answers("/manifests/latest", Fault::ServerError);
    let ran = stage.onggi.run(&["pull", &stage.busybox]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("500"), "{ran}");
    stage.registry.break_answers("/manifests/latest", Fault::TooManyRequestsOnce);
    stage.onggi.ok(&["pull", &stage.busybox]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_wrong_and_truncated_blobs_are_not_stored_and_the_next_pull_works() {
    let stage = Stage::new();
    let image = onggi_tests::image::busybox(Flavour::Oci);
    let layer = image.layers[0].digest();
    for (fault, text) in [(Fault::WrongContent, "wrong content"), (Fault::Truncated, layer.as_str())] {
        stage.registry.break_answers(&layer, fault);
        let ran = stage.onggi.run(&["run", "--rm", &stage.busybox, "true"]);
        assert_refused(&ran, 125, &[text]);
        let stored = stage.onggi.root().join("blobs/sha256").join(layer.replace("sha256:", ""));
        assert!(!stored.exists(), "{fault:?}: nothing wrong is stored");
    }
    stage.registry.break_answers(&image.config.digest(), Fault::WrongContent);
    let ran = stage.onggi.run(&["pull", &stage.busybox]);
    assert_eq!(ran.code, Some(1), "{ran}");
    stage.registry.repair();
    assert_eq!(stage.onggi.ok(&["run", "--rm", "--network", "none", &stage.busybox, "echo", "well"]), "well");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let stage = Stage::new();
    let image = onggi_tests::image::busybox(Flavour::Oci);
    let digest = image.manifest.digest();
    stage.registry.break_answers(&digest, Fault::WrongContent);
    let name = format!("{}@{digest}", stage.registry.name("busybox"));
    let ran = stage.onggi.run(&["run", "--rm", &name, "true"]);
    assert_refused(&ran, 125, &["wrong content", &digest]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_layer_whose_content_is_not_its_diff_id_is_refused() {
    let stage = Stage::new();
    let mut image = with_layer(&Tarball::new().file("a", 0o644, b"x").finish());
    let mut config: serde_json::Value = serde_json::from_slice(&image.config.bytes).expect("our own JSON");
    config["rootfs"]["diff_ids"][1] = serde_json::json!(onggi_tests::image::digest(b"something else"));
    let old = image.config.digest();
    let old_size = image.config.bytes.len();
    image.config.bytes = config.to_string().into_bytes();
    let manifest = String::from_utf8(image.manifest.bytes).expect("our own JSON");
    let manifest = manifest.replace(&old, &image.config.digest());
    let manifest = manifest.replace(&format!("\"size\":{old_size}"), &format!("\"size\":{}", image.config.bytes.len()));
    image.manifest.bytes = manifest.into_bytes();
    let name = stage.registry.serve("liar", "latest", &image);
    let ran = stage.onggi.run(&["run", "--rm", &name, "true"]);
    assert_refused(&ran, 125, &["sha256:"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_an_image_for_another_machine_says_which() {
    let stage = Stage::new();
    let image = ImageBuilder::new(Flavour::Oci)
        .architecture("arm64")
        .layer(&busybox_tree().finish(), Compression::Gzip)
        .build();
    let name = stage.registry.serve("foreign", "latest", &image);
    let ran = stage.onggi.run(&["run", "--rm", &name, "true"]);
    assert_refused(&ran, 125, &["arm64", "amd64"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_manifest_with_two_meanings_is_refused() {
    let stage = Stage::new();
    let image = onggi_tests::image::busybox(Flavour::Oci);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest.bytes).expect("our own JSON");
    manifest["manifests"] = serde_json::json!([]);
    let blob = Blob { media_type: image.manifest.media_type, bytes: manifest.to_string().into_bytes() };
    stage.registry.route("/v2/busybox/manifests/both", blob);
    let ran = stage.onggi.run(&["run", "--rm", &format!("{}:both", stage.registry.name("busybox")), "true"]);
    assert_eq!(ran.code, Some(125), "{ran}");
    stage.onggi.assert_nothing_left();
}

/// A sentinel that a hostile layer tries to change, and the layer.
struct Escape {
    what: &'static str,
    hostile: fn(&Path) -> Tarball,
}

const ESCAPES: &[Escape] = &[
    Escape {
        what: "a name with ..",
        hostile: |dir| Tarball::new().file(&format!("../../../../../../../..{}/new", dir.display()), 0o644, b"bad"),
    },
    Escape {
        what: "an absolute name",
        hostile: |dir| Tarball::new().file(&format!("{}/new", dir.display()), 0o644, b"bad"),
    },
    Escape {
        what: "a file through an absolute symlink",
        hostile: |dir| Tarball::new().symlink("link", &dir.to_string_lossy()).file("link/new", 0o644, b"bad"),
    },
    Escape {
        what: "a file through a relative symlink",
        hostile: |dir| {
            Tarball::new()
                .symlink("link", &format!("../../../../../../../..{}", dir.display()))
                .file("link/new", 0o644, b"bad")
        },
    },
    Escape {
        what: "overwriting the target of a symlink",
        hostile: |dir| Tarball::new().symlink("link", &dir.join("old").to_string_lossy()).file("link", 0o644, b"bad"),
    },
    Escape {
        what: "a hard link to a host file",
        hostile: |dir| {
            Tarball::new()
                .hard_link("hard", &format!("../../../../../../../..{}/old", dir.display()))
                .file("hard", 0o644, b"bad")
        },
    },
    Escape {
        what: "a hard link through a symlink",
        hostile: |dir| {
            Tarball::new()
                .symlink("link", &dir.to_string_lossy())
                .hard_link("hard", "link/old")
                .file("hard", 0o644, b"bad")
        },
    },
    Escape {
        what: "chmod of a directory through a symlink",
        hostile: |dir| Tarball::new().symlink("link", &dir.to_string_lossy()).directory("link/", 0o777),
    },
    Escape {
        what: "a whiteout through a symlink",
        hostile: |dir| Tarball::new().symlink("link", &dir.to_string_lossy()).file("link/.wh.old", 0o644, b""),
    },
    Escape {
        what: "a whiteout of the parent",
        hostile: |_| Tarball::new().file(".wh...", 0o644, b"").file(".wh..", 0o644, b""),
    },
    Escape {
        what: "the root as a symlink",
        hostile: |dir| {
            Tarball::new().entry(kind::SYMLINK, "./", 0o777, &dir.to_string_lossy(), &[]).file("new", 0o644, b"bad")
        },
    },
];

#[test]
fn e2e_no_layer_writes_outside_its_root() {
    let stage = Stage::new();
    // A short path: it must fit into a plain tar header together with the climbing.
    let sentinel =
        tempfile::Builder::new().prefix("onggi-s").rand_bytes(4).tempdir_in("/tmp").expect("make a directory");
    let sentinel = sentinel.path();
    fs::write(sentinel.join("old"), "old").expect("fill the sentinel");
    fs::set_permissions(sentinel, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set its mode");
    let before = look(sentinel);
    for (at, escape) in ESCAPES.iter().enumerate() {
        let image = with_layer(&(escape.hostile)(sentinel).finish());
        let name = stage.registry.serve(&format!("escape{at}"), "latest", &image);
        // Refusing the layer and keeping it inside are both right.
        let ran = stage.onggi.run(&["run", "--rm", "--network", "none", &name, "true"]);
        assert!(matches!(ran.code, Some(0 | 125)), "{}: {ran}", escape.what);
        if ran.code == Some(125) {
            assert_refused(&ran, 125, &["layer"]);
        }
        assert_eq!(look(sentinel), before, "{}", escape.what);
    }
    stage.onggi.assert_nothing_left();
}

/// Names, modes, contents and link counts.
fn look(dir: &Path) -> Vec<String> {
    let text = onggi_tests::machine::sh(&format!("cd {} && stat -c '%n %a %h %u' . * && cat *", dir.display()));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn e2e_layers_that_only_look_hostile_work() {
    let stage = Stage::new();
    let benign = Tarball::new()
        .directory("./", 0o755)
        .symlink("var/run", "/run")
        .symlink("up", "../../etc/passwd")
        .file("./dotted", 0o644, b"fine\n")
        .file("a..b", 0o644, b"fine\n")
        .file("usr/share/made-parents/f", 0o644, b"fine\n")
        .symlink("lib64", "usr/lib")
        .directory("usr/lib/", 0o755)
        .file("lib64/through-a-link-of-the-image", 0o644, b"fine\n")
        .file("one", 0o644, b"fine\n")
        .hard_link("./two", "one")
        .hard_link("three", "/one")
        .finish();
    let name = stage.registry.serve("benign", "latest", &with_layer(&benign));
    let script = "cat dotted a..b usr/share/made-parents/f usr/lib/through-a-link-of-the-image two three; head -n 1 up";
    let text = stage.onggi.ok(&["run", "--rm", "--network", "none", &name, "sh", "-c", script]);
    assert_eq!(text, format!("{}root:x:0:0:root:/root:/bin/sh", "fine\n".repeat(6)));
    stage.onggi.assert_nothing_left();
}
