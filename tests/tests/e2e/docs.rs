//! What docs/images.md tells people to type, carried out as it stands there.

use std::{fs, path::Path, process::Command};

use onggi_tests::{
    image::{Blob, Compression, Flavour, ImageBuilder},
    tarball::Tarball,
};
use serde_json::json;

use crate::Stage;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The text of the block with this name.
fn block(name: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images.md");
    let text = fs::read_to_string(page).expect("read docs/images.md");
    let named = |fence: &str| fence.split_whitespace().nth(1) == Some(name);
    let mut fences = text.split("```").skip(1).step_by(2);
    let found = fences.find(|block| block.lines().next().is_some_and(named));
    let found = found.unwrap_or_else(|| panic!("docs/images.md has no block {name}"));
    found.split_once('\n').expect("a block has lines").1.to_owned()
}

#[test]
fn e2e_docs_a_file_is_recovered_by_hand() {
    let stage = Stage::new();
    let layer = |name: &str, content: &str| Tarball::new().file(name, 0o644, content.as_bytes()).finish();
    let above = Tarball::new()
        .file("etc/.wh.gone", 0o644, b"")
        .directory("all", 0o755)
        .file("all/.wh..wh..opq", 0o644, b"")
        .file("was-dir", 0o644, b"now a file")
        .symlink("moved", "/etc")
        .symlink("etc/h", "/etc/hostname");
    let below = Tarball::new()
        .file("etc/motd", 0o644, b"old\n")
        .file("etc/gone", 0o644, b"x")
        .file("all/gone", 0o644, b"x")
        .file("was-dir/inside", 0o644, b"x")
        .file("moved/hostname", 0o644, b"x")
        .hard_link("etc/other-name", "etc/motd");
    let (below, above) = (below.finish(), above.finish());
    let built = |third| {
        ImageBuilder::new(Flavour::Oci)
            .layer(&below, Compression::Gzip)
            .layer(&layer("./etc/motd", "new\n"), Compression::Gzip)
            .layer(&above, third)
            .build()
    };
    // Two manifests that name the same configuration.
    let (image, again) = (built(Compression::Zstd), built(Compression::Gzip));
    assert_eq!(image.config.digest(), again.config.digest());
    let again_name = stage.registry.serve("recover-again", "latest", &again);
    // One of several platforms: what the name means is an index then.
    stage.registry.serve("recover", "this", &image);
    let platform = json!({ "os": "linux", "architecture": "amd64" });
    let manifest = &image.manifest;
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        { "mediaType": manifest.media_type, "digest": manifest.digest(), "size": manifest.bytes.len(), "platform": platform },
    ]});
    let index = Blob { media_type: INDEX.to_owned(), bytes: index.to_string().into_bytes() };
    stage.registry.route(&format!("/v2/recover/manifests/{}", index.digest()), index.clone());
    stage.registry.route("/v2/recover/manifests/latest", index);
    let name = stage.registry.name("recover");
    stage.onggi.ok(&["pull", &name]);
    stage.onggi.ok(&["pull", &again_name]);
    let (root, dir) = (stage.onggi.root(), stage.onggi.dir());
    let onggi = format!(
        "onggi() {{ {} --root {} --runroot {} \"$@\"; }}\n",
        stage.onggi.program().display(),
        root.display(),
        stage.onggi.runroot().display()
    );
    let shell_for = |name: &str, file: &str| {
        let script = format!("set -e\n{onggi}{}", block(name));
        let mut run = Command::new("bash");
        run.args(["-c", &script]).current_dir(dir).env("ROOT", &root).env("FILE", file);
        run.env("ID", &image.config.digest()[7..]);
        let out = run.output().expect("start bash");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && said.is_empty(), "{name}: {text}{said}");
        text
    };
    let shell = |name: &str| shell_for(name, "etc/motd");
    assert!(shell("list").contains("recover"), "{}", shell("list"));
    shell("chain");
    let ids = fs::read_to_string(dir.join("chain-ids")).expect("the block wrote them");
    let mut layers: Vec<String> = ids.lines().map(str::to_owned).collect();
    layers.sort();
    let mut stored: Vec<String> = fs::read_dir(root.join("layers"))
        .expect("the layers are there")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    stored.sort();
    assert_eq!(layers, stored);
    assert_eq!(shell("find"), "new\n");
    let both = [manifest.digest()[7..].to_owned(), again.manifest.digest()[7..].to_owned()];
    shell("manifest");
    let found = fs::read_to_string(dir.join("manifest")).expect("the block wrote it");
    assert!(both.iter().any(|digest| digest == found.trim()), "{found}");
    for way in ["find", "blob"] {
        assert_eq!(shell(way), "new\n");
        assert_eq!(shell_for(way, "etc/other-name"), "old\n", "{way}: a hard link");
        for (file, by) in [("etc/gone", "gone hides"), ("all/gone", "hides"), ("was-dir/inside", "/was-dir hides")] {
            let told = shell_for(way, file);
            assert!(told.starts_with("deleted: ") && told.contains(by), "{way}: {told}");
        }
        // Links name files of the image, never of this machine.
        let told = shell_for(way, "etc/h");
        assert!(told.starts_with("link: ") && told.ends_with("/etc/h leads to /etc/hostname\n"), "{way}: {told}");
        let told = shell_for(way, "moved/hostname");
        assert!(told.ends_with("/moved leads to /etc, from there on to hostname\n"), "{way}: {told}");
        assert!(shell_for(way, "nowhere/at/all").is_empty());
        assert!(shell_for(way, "etc").starts_with("directory: "));
    }
    let verified = shell("verify");
    assert!(!verified.contains("damaged") && verified.contains("everything is sound"), "{verified}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_docs_the_settings_of_a_budget_are_read() {
    let stage = Stage::new();
    let file = stage.onggi.dir().join("onggi.toml");
    fs::write(&file, block("budget")).expect("write the settings");
    let ran = stage.onggi.finish(stage.onggi.command(&["images"]).env("ONGGI_CONFIG", &file));
    assert_eq!(ran.code, Some(0), "{ran}");
}
