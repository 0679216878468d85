//! Images: pulling in every form, listing, naming, removing.

use std::fs;

use onggi_tests::{
    image::{self, Compression, Flavour, ImageBuilder, busybox_tree},
    machine,
    registry::Registry,
    tarball::Tarball,
};
use serde_json::json;

use crate::Stage;

#[test]
fn e2e_every_form_of_manifest_and_compression_is_pulled() {
    let stage = Stage::new();
    let tree = busybox_tree().finish();
    let forms = [
        (Flavour::Docker, Compression::Gzip),
        (Flavour::Docker, Compression::Plain),
        (Flavour::Oci, Compression::Gzip),
        (Flavour::Oci, Compression::Zstd),
        (Flavour::Oci, Compression::Plain),
    ];
    for (at, (flavour, compression)) in forms.into_iter().enumerate() {
        let image = ImageBuilder::new(flavour).layer(&tree, compression).build();
        let name = stage.registry.serve(&format!("form{at}"), "v1", &image);
        assert_eq!(
            stage.onggi.ok(&["run", "--rm", "--network", "none", &name, "echo", "runs"]),
            "runs",
            "{flavour:?} {compression:?}"
        );
        let digest = format!("{}@{}", stage.registry.name(&format!("form{at}")), image.manifest.digest());
        stage.onggi.ok(&["pull", &digest]);
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_of_an_index_the_image_of_this_machine_is_taken() {
    let stage = Stage::new();
    let here = image::busybox(Flavour::Oci);
    let there = ImageBuilder::new(Flavour::Oci)
        .architecture("arm64")
        .layer(&busybox_tree().finish(), Compression::Gzip)
        .build();
    for image in [&here, &there] {
        stage.registry.serve("many", "unused", image);
    }
    let entry = |image: &image::Image, architecture: &str| {
        json!({
            "mediaType": image.manifest.media_type, "digest": image.manifest.digest(),
            "size": image.manifest.bytes.len(), "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let kind = "application/vnd.oci.image.index.v1+json";
    let index =
        json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [entry(&there, "arm64"), entry(&here, "amd64")] });
    let blob = image::Blob { media_type: kind.to_owned(), bytes: index.to_string().into_bytes() };
    stage.registry.route(&format!("/v2/many/manifests/{}", blob.digest()), blob.clone());
    stage.registry.route("/v2/many/manifests/latest", blob);
    let name = stage.registry.name("many");
    assert_eq!(stage.onggi.ok(&["run", "--rm", "--network", "none", &name, "cat", "/srv/layer"]), "second layer");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_what_skopeo_pushed_to_a_real_registry_is_pulled_once() {
    let stage = Stage::new();
    let registry = Registry::new();
    let name = registry.push("busybox", &image::busybox(Flavour::Oci));
    assert!(stage.onggi.ok(&["pull", &name]).contains("busybox"));
    assert_eq!(stage.onggi.ok(&["run", "--rm", "--network", "none", &name, "echo", "runs"]), "runs");
    drop(registry);
    assert_eq!(
        stage.onggi.ok(&["run", "--rm", "--network", "none", &name, "echo", "again"]),
        "again",
        "no registry is needed any more"
    );
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_present_image_is_not_fetched_again_and_shared_layers_only_once() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let first = stage.registry.asked().len();
    stage.onggi.ok(&["pull", &stage.busybox]);
    assert_eq!(stage.registry.asked().len(), first + 1, "one request: {:?}", stage.registry.asked());
    let top = Tarball::new().file("own", 0o644, b"x").finish();
    let other = ImageBuilder::new(Flavour::Oci)
        .layer(&busybox_tree().finish(), Compression::Gzip)
        .layer(&top, Compression::Gzip)
        .build();
    let name = stage.registry.serve("other", "latest", &other);
    stage.onggi.ok(&["pull", &name]);
    let base = image::busybox(Flavour::Oci).layers[0].digest();
    let fetched = stage.registry.asked().iter().filter(|path| path.ends_with(&base)).count();
    assert_eq!(fetched, 1, "the common layer was fetched once: {:?}", stage.registry.asked());
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_present_image_that_lost_a_part_is_made_whole_by_the_next_pull() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", &stage.busybox]);
    for part in ["layers", "blobs/sha256"] {
        machine::sh(&format!("d={}/{part}; rm -rf $d/$(ls $d | head -1)", onggi.root().display()));
        onggi.ok(&["pull", &stage.busybox]);
        assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", &stage.busybox, "echo", "whole"]), "whole", "{part}");
        onggi.ok(&["system", "check"]);
    }
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_present_image_with_a_damaged_blob_is_not_taken_for_whole() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", &stage.busybox]);
    let dir = onggi.root().join("blobs/sha256");
    let blobs: Vec<_> = fs::read_dir(&dir).expect("list the blobs").map(|e| e.expect("a blob").path()).collect();
    assert!(blobs.len() >= 3, "manifest, configuration, layer");
    for blob in &blobs {
        let whole = fs::read(blob).expect("read a blob");
        let mut damages = vec![whole[..whole.len() - 1].to_vec()];
        // Documents are hashed by every pull; of a layer's blob only `system check` reads every byte.
        if whole.starts_with(b"{") {
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 1;
            damages.push(flipped);
        }
        for damage in damages {
            fs::write(blob, &damage).expect("damage a blob");
            let asked = stage.registry.asked().len();
            onggi.ok(&["pull", &stage.busybox]);
            assert_eq!(stage.registry.asked().len(), asked + 2, "the digest, and what was damaged");
            assert!(fs::read(blob).is_ok_and(|now| now == whole), "{} is whole again", blob.display());
        }
    }
    onggi.ok(&["pull", &stage.busybox]);
    onggi.ok(&["system", "check"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_name_that_was_given_to_another_image_is_pulled_anew() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let top = Tarball::new().file("own", 0o644, b"x").finish();
    let image = ImageBuilder::new(Flavour::Oci)
        .layer(&busybox_tree().finish(), Compression::Gzip)
        .layer(&top, Compression::Gzip)
        .build();
    let name = stage.registry.serve("other", "latest", &image);
    onggi.ok(&["pull", &name]);
    onggi.ok(&["pull", &stage.busybox]);
    onggi.ok(&["tag", &name, &stage.busybox]);
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", &stage.busybox, "cat", "/own"]), "x");
    onggi.ok(&["pull", &stage.busybox]);
    assert_ne!(onggi.run(&["run", "--rm", "--network", "none", &stage.busybox, "cat", "/own"]).code, Some(0));
    onggi.ok(&["rmi", "-f", &name]);
    onggi.ok(&["rmi", "-f", &stage.busybox]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_images_are_listed_named_and_removed() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let table = stage.onggi.ok(&["images"]);
    let head: Vec<&str> = table.lines().next().expect("a head").split_whitespace().collect();
    assert_eq!(head, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    assert!(table.contains("/busybox") && table.contains("latest"), "{table}");
    let id = stage.onggi.ok(&["images", "-q"]);
    assert_eq!(id.len(), 12, "{id}");
    stage.onggi.ok(&["tag", &stage.busybox, "mine:v2"]);
    assert_eq!(stage.onggi.ok(&["run", "--rm", "--network", "none", "mine:v2", "echo", "tagged"]), "tagged");
    assert_eq!(stage.onggi.ok(&["run", "--rm", "--network", "none", &id, "echo", "by id"]), "by id");
    let text = stage.onggi.ok(&["rmi", "mine:v2"]);
    assert!(text.contains("Untagged") && !text.contains("Deleted"), "{text}");
    stage.onggi.ok(&["run", "-d", "--name", "user", "--network", "none", &stage.busybox, "true"]);
    let used = stage.onggi.run(&["rmi", &stage.busybox]);
    assert_eq!(used.code, Some(1), "{used}");
    assert!(used.stderr.contains("user") || used.stderr.contains("container"), "{used}");
    stage.onggi.ok(&["rm", "-f", "user"]);
    let text = stage.onggi.ok(&["rmi", &stage.busybox]);
    assert!(text.contains("Deleted"), "{text}");
    assert_eq!(stage.onggi.ok(&["images", "-q"]), "");
    let left = machine::sh(&format!("find {0}/layers {0}/blobs/sha256 -type f", stage.onggi.root().display()));
    assert_eq!(left, "", "no file of a removed image is left");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_layers_apply_in_order_with_whiteouts_links_modes_and_owners() {
    let stage = Stage::new();
    let lower = busybox_tree()
        .directory("d/", 0o750)
        .file("d/gone", 0o644, b"x")
        .file("d/stays", 0o4711, b"x")
        .hard_link("d/hard", "d/stays")
        .directory("opaque/", 0o755)
        .file("opaque/old", 0o644, b"x")
        .symlink("absolute", "/d/stays")
        .symlink("var/run", "/run")
        .finish();
    let upper = Tarball::new()
        .file("d/.wh.gone", 0o644, b"")
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/new", 0o644, b"y")
        .finish();
    let image =
        ImageBuilder::new(Flavour::Oci).layer(&lower, Compression::Gzip).layer(&upper, Compression::Gzip).build();
    let name = stage.registry.serve("layers", "latest", &image);
    let script = "ls d opaque; stat -c '%a %h' d/stays; stat -c %a d; cat absolute; readlink var/run";
    let text = stage.onggi.ok(&["run", "--rm", "--network", "none", &name, "sh", "-c", script]);
    assert_eq!(text, "d:\nhard\nstays\n\nopaque:\nnew\n4711 2\n750\nx/run");
    stage.onggi.assert_nothing_left();
}
