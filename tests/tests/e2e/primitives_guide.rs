//! docs/primitives.md, carried out as it stands there.

use std::{fs, path::Path, process::Command};

use crate::Stage;

/// The blocks of the page, by name.
fn blocks() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/primitives.md");
    let text = fs::read_to_string(page).expect("read docs/primitives.md");
    let fences = text.split("```sh ").skip(1);
    fences
        .map(|fence| {
            let (name, rest) = fence.split_once('\n').expect("a block has lines");
            (name.to_owned(), rest.split("```").next().expect("a block ends").to_owned())
        })
        .collect()
}

#[test]
fn e2e_the_guide_to_the_primitives_is_carried_out() {
    let stage = Stage::new();
    let expected = [
        ("chroot", &["process 1", "\nproc\n"][..]),
        ("overlay", &["one\n", "D", "character device 0:0", "lowerdir", ".wh.other", "sha256:"]),
        ("net", &["<-> to-host in blue", "masquerade", "0% packet loss"]),
        ("caps", &["cap_net_raw=ep", "CapBnd", "CapAmb:\t0000000000000400"]),
        ("ns", &["inside\n", "0\n1\n"]),
    ];
    let blocks = blocks();
    assert_eq!(blocks.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected.map(|(name, _)| name));
    let (root, runroot) = (stage.onggi.root(), stage.onggi.runroot());
    let program = stage.onggi.program().display();
    for ((name, block), (_, parts)) in blocks.iter().zip(expected) {
        let dir = stage.onggi.dir().join(name);
        fs::create_dir(&dir).expect("a directory is made");
        let options = format!("--root {} --runroot {}", root.display(), runroot.display());
        let script = format!("set -e\nonggi() {{ {program} {options} \"$@\"; }}\n{block}");
        let out = Command::new("bash").args(["-c", &script]).current_dir(&dir).output().expect("start bash");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&out.stderr));
        for part in parts {
            assert!(text.contains(part), "{name}: {part:?} is missing in\n{text}");
        }
    }
    stage.onggi.assert_nothing_left();
}
