//! What docs/images.md tells people to type, carried out as it stands there.

use std::{fs, path::Path, process::Command};

use onggi_tests::{
    image::{Compression, Flavour, ImageBuilder},
    tarball::Tarball,
};

use crate::Stage;

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
    let layer = |content: &str| Tarball::new().file("etc/motd", 0o644, content.as_bytes()).finish();
    let image = ImageBuilder::new(Flavour::Oci)
        .layer(&layer("old\n"), Compression::Gzip)
        .layer(&layer("new\n"), Compression::Gzip)
        .layer(&Tarball::new().file("other", 0o644, b"x").finish(), Compression::Zstd)
        .build();
    let name = stage.registry.serve("recover", "latest", &image);
    stage.onggi.ok(&["pull", &name]);
    let (root, dir) = (stage.onggi.root(), stage.onggi.dir());
    let onggi = format!(
        "onggi() {{ {} --root {} --runroot {} \"$@\"; }}\n",
        stage.onggi.program().display(),
        root.display(),
        stage.onggi.runroot().display()
    );
    let shell = |name: &str| {
        let script = format!("set -e\n{onggi}{}", block(name));
        let mut run = Command::new("bash");
        run.args(["-c", &script]).current_dir(dir).env("ROOT", &root).env("FILE", "etc/motd");
        run.env("ID", &image.config.digest()[7..]).env("MANIFEST", &image.manifest.digest()[7..]);
        let out = run.output().expect("start bash");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&out.stderr));
        text
    };
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
