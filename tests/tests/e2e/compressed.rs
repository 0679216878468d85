//! Archives compressed by xz and bzip2: load, import, import from a URL; and those that are damaged or hostile.

use std::{fs, path::PathBuf};

use onggi_tests::{
    Ran,
    gate::{Act, Gate},
    image::{Compression, Flavour, ImageBuilder, busybox_tree},
    machine::sh,
    tarball::Tarball,
};

use crate::Stage;

/// A file of the test's directory.
fn at(stage: &Stage, name: &str) -> PathBuf {
    stage.onggi.dir().join(name)
}

/// An archive of an image with one file that does not shrink.
fn saved(stage: &Stage) -> PathBuf {
    let (layout, archive) = (at(stage, "layout"), at(stage, "saved.tar"));
    let noise: Vec<u8> = (0..50_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let layer = Tarball::new().file("noise", 0o644, &noise).finish();
    ImageBuilder::new(Flavour::Oci).layer(&layer, Compression::Plain).build().write_layout(&layout);
    sh(&format!("tar -C {} -cf {} .", layout.display(), archive.display()));
    archive
}

fn empty(stage: &Stage) -> bool {
    let root = stage.onggi.root();
    stage.onggi.ok(&["images", "-q"]).is_empty()
        && sh(&format!("find {0}/layers {0}/tmp {0}/blobs/sha256 -mindepth 1 2>/dev/null || true", root.display()))
            .is_empty()
}

#[track_caller]
fn refused(stage: &Stage, ran: &Ran, words: &str) {
    assert!(ran.code == Some(1) && ran.stderr.contains(words), "{ran}");
    assert!(!ran.stderr.contains("panicked"), "{ran}");
    assert!(empty(stage), "{ran}");
}

#[test]
fn e2e_load_and_import_read_xz_and_bzip2_from_files_pipes_and_urls() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let (archive, tree) = (saved(&stage), at(&stage, "tree.tar"));
    fs::write(&tree, busybox_tree().finish()).expect("write the tree");
    let mut ids = Vec::new();
    for tool in ["xz -0", "xz -T2 --block-size=200KiB --check=sha256", "bzip2 -1"] {
        for file in [&archive, &tree] {
            sh(&format!("{tool} -c {0} > {0}.packed", file.display()));
        }
        let (archive, tree) = (format!("{}.packed", archive.display()), format!("{}.packed", tree.display()));
        assert!(onggi.ok(&["load", "-i", &archive]).starts_with("Loaded image"), "{tool}");
        assert_eq!(onggi.ok(&["images", "-q"]).lines().count(), 1, "{tool}");
        onggi.ok(&["image", "prune", "-af"]);
        let mut piped = onggi.command(&["load"]);
        assert_eq!(onggi.finish(piped.stdin(fs::File::open(&archive).expect("open"))).code, Some(0), "{tool}");
        onggi.ok(&["image", "prune", "-af"]);
        let body = fs::read(&tree).expect("read the tree");
        let server = Gate::new(0, move |_| Act::Answer(200, vec![], body.clone()));
        onggi.ok(&["import", &format!("http://{}/tree.tar.packed", server.host()), "tree:url"]);
        onggi.ok(&["import", &tree, "tree:file"]);
        assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "tree:url", "echo", "runs"]), "runs");
        let layers = "{{json .RootFS}}";
        ids.push(onggi.ok(&["image", "inspect", "-f", layers, "tree:url"]));
        ids.push(onggi.ok(&["image", "inspect", "-f", layers, "tree:file"]));
        onggi.ok(&["image", "prune", "-af"]);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "whatever it was compressed by, it is the same layer: {ids:?}");
    assert!(empty(&stage));
    onggi.assert_nothing_left();
}

#[test]
fn e2e_damaged_and_hostile_xz_and_bzip2_are_refused_in_bounded_memory() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let archive = saved(&stage);
    let bad = at(&stage, "bad");
    let load = || onggi.run(&["load", "-i", bad.to_str().expect("a name")]);
    for (tool, name) in [("xz -0", "xz"), ("bzip2 -1", "bzip2")] {
        let pack = |tail: &str| sh(&format!("{tool} -c {} > {1}; {tail}", archive.display(), bad.display()));
        pack(&format!("truncate -s -9 {}", bad.display()));
        refused(&stage, &load(), &format!("the {name} stream of the"));
        pack(&format!("printf 'trailing garbage' >> {}", bad.display()));
        refused(&stage, &load(), &format!("the {name} stream of the"));
        pack(&format!("printf X | dd of={} bs=1 seek=70000 conv=notrunc 2>/dev/null", bad.display()));
        refused(&stage, &load(), &format!("the {name} stream of the"));
        // One stream after the other is one archive, as the tools themselves have it.
        sh(&format!(
            "head -c 99999 {0} | {tool} -c > {1}; tail -c +100000 {0} | {tool} -c >> {1}",
            archive.display(),
            bad.display()
        ));
        assert_eq!(load().code, Some(0), "{name}");
        onggi.ok(&["image", "prune", "-af"]);
    }
    // A dictionary of a gigabyte and a half.
    sh(&format!(
        "head -c 4096 {} | xz --memlimit=0 --lzma2=dict=1536MiB,mode=fast,mf=hc3,nice=4 -c > {} || true",
        archive.display(),
        bad.display()
    ));
    sh(&format!(
        "test -s {0} || head -c 4096 {1} | xz --lzma2=dict=512MiB,mode=fast,mf=hc3,nice=4 -c > {0}",
        bad.display(),
        archive.display()
    ));
    let greedy = load();
    refused(&stage, &greedy, "asks for more memory than 64 MiB");
    assert!(greedy.stderr.contains("hint: compress it again"), "{greedy}");
    // A bomb: very many zeros in some kilobytes are no archive, take no room and little memory.
    for (tool, size) in [("xz -0", "300M"), ("bzip2", "10M")] {
        sh(&format!("head -c {size} /dev/zero | {tool} -c > {}", bad.display()));
        let mut limited = std::process::Command::new("prlimit");
        let command = onggi.command(&["load", "-i", bad.to_str().expect("a name")]);
        limited.arg("--data=268435456").arg(command.get_program()).args(command.get_args());
        limited.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        refused(&stage, &onggi.finish(&mut limited), "");
    }
    onggi.assert_nothing_left();
}
