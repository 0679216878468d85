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
    let above =
        Tarball::new().file("etc/.wh.gone", 0o644, b"").directory("all", 0o755).file("all/.wh..wh..opq", 0o644, b"");
    let below =
        Tarball::new().file("etc/motd", 0o644, b"old\n").file("etc/gone", 0o644, b"x").file("all/gone", 0o644, b"x");
    let image = ImageBuilder::new(Flavour::Oci)
        .layer(&below.finish(), Compression::Gzip)
        .layer(&layer("./etc/motd", "new\n"), Compression::Gzip)
        .layer(&above.finish(), Compression::Zstd)
        .build();
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
        assert!(out.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&out.stderr));
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
    for (file, by) in [("etc/gone", "/etc/gone hides"), ("all/gone", "/all hides")] {
        let told = shell_for("find", file);
        assert!(told.starts_with("deleted: ") && told.contains(by), "{told}");
    }
    shell("manifest");
    assert_eq!(fs::read_to_string(dir.join("manifest")).expect("the block wrote it").trim(), &manifest.digest()[7..]);
    assert_eq!(shell("blob"), "new\n");
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
