//! The store as its owner sees it: drivers, what it occupies, what can go, what is damaged, what happens on a full disk.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use onggi_tests::{
    Onggi,
    image::{self, Compression, Flavour, ImageBuilder, busybox_tree},
    machine::sh,
    tarball::Tarball,
};

use crate::Stage;

/// Mounts a new filesystem as the store, on a loop device of the test's own mount namespace.
fn on_filesystem(stage: &Stage, mkfs: &str, size: &str) {
    let (root, image) = (stage.onggi.root(), stage.onggi.dir().join("disk.img"));
    let (root, image) = (root.display(), image.display());
    sh(&format!("truncate -s {size} {image}; {mkfs} {image}; mount -o loop {image} {root}"));
}

fn leave_filesystem(stage: &Stage) {
    sh(&format!("umount {}", stage.onggi.root().display()));
}

/// Two images on one base.
fn serve_child(stage: &Stage) -> String {
    let top = Tarball::new().file("own", 0o644, &[b'x'; 50_000]).finish();
    let child = ImageBuilder::new(Flavour::Oci)
        .layer(&busybox_tree().finish(), Compression::Gzip)
        .layer(&top, Compression::Gzip)
        .build();
    stage.registry.serve("child", "latest", &child)
}

/// One life with a driver: run, exec, restart, what was written stays, rm.
fn life(stage: &Stage, driver: &str) {
    let onggi = &stage.onggi;
    let with = |args: &[&str]| onggi.ok(&[&["--storage-driver", driver], args].concat());
    assert_eq!(with(&["run", "--rm", "--network", "none", &stage.busybox, "echo", "runs"]), "runs");
    with(&["run", "-d", "--name", "web", "--network", "none", &stage.busybox, "sleep", "1000"]);
    // From here on the store knows.
    assert_eq!(onggi.ok(&["exec", "web", "sh", "-c", "echo kept > /kept; id -un"]), "root");
    onggi.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(onggi.ok(&["exec", "web", "cat", "/kept"]), "kept");
    let shown = onggi.ok(&["ps", "--format", "{{.Size}}"]);
    assert!(shown != "0B", "{shown}");
    assert_eq!(onggi.ok(&["info", "--format", "{{.Driver}}"]), driver);
    let fresh = onggi.run(&["run", "--rm", "--network", "none", &stage.busybox, "cat", "/kept"]);
    assert_eq!(fresh.code, Some(1), "one container's file is not another's: {fresh}");
    let other = if driver == "vfs" { "overlay" } else { "vfs" };
    let refused = onggi.run(&["--storage-driver", other, "run", "--rm", &stage.busybox, "true"]);
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.stderr.contains(driver) && refused.stderr.contains("hint:"), "{refused}");
    onggi.ok(&["rm", "-f", "web"]);
    onggi.ok(&["system", "check"]);
    onggi.ok(&["rmi", &stage.busybox]);
    let left = sh(&format!("find {0}/layers {0}/tmp {0}/containers -mindepth 1", onggi.root().display()));
    assert_eq!(left, "", "{driver}");
}

#[test]
fn e2e_containers_live_on_the_driver_vfs() {
    let stage = Stage::new();
    life(&stage, "vfs");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_containers_live_on_the_driver_btrfs() {
    let stage = Stage::new();
    on_filesystem(&stage, "mkfs.btrfs -q", "300M");
    life(&stage, "btrfs");
    leave_filesystem(&stage);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_driver_that_cannot_work_here_says_so() {
    let stage = Stage::new();
    on_filesystem(&stage, "mkfs.ext4 -q", "64M");
    let refused = stage.onggi.run(&["--storage-driver", "btrfs", "pull", &stage.busybox]);
    assert!(refused.code != Some(0) && refused.stderr.contains("needs a btrfs filesystem"), "{refused}");
    let unknown = stage.onggi.run(&["--storage-driver", "zfs", "images"]);
    assert!(unknown.code != Some(0) && unknown.stderr.contains("overlay, btrfs and vfs"), "{unknown}");
    // Neither left its mark on the store.
    stage.onggi.ok(&["pull", &stage.busybox]);
    stage.onggi.ok(&["rmi", &stage.busybox]);
    leave_filesystem(&stage);
}

#[test]
fn e2e_system_df_has_dockers_columns_and_counts_shared_layers_once() {
    let stage = Stage::new();
    let child = serve_child(&stage);
    stage.onggi.ok(&["pull", &stage.busybox]);
    stage.onggi.ok(&["pull", &child]);
    stage.onggi.ok(&["create", "--name", "user", &child, "true"]);
    let table = stage.onggi.ok(&["system", "df"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    assert_eq!(rows[1][..3], ["Images", "2", "1"], "{table}");
    assert_eq!(rows[2][..3], ["Containers", "1", "0"], "{table}");
    assert_eq!(rows[3], ["Local", "Volumes", "0", "0", "0B", "0B"]);
    assert_eq!(rows[4], ["Build", "Cache", "0", "0", "0B", "0B"]);
    let verbose = stage.onggi.ok(&["system", "df", "-v"]);
    for title in
        ["Images space usage:", "SHARED SIZE", "UNIQUE SIZE", "Containers space usage:", "Build cache usage: 0B"]
    {
        assert!(verbose.contains(title), "{title} is missing in {verbose}");
    }
    let line = verbose.lines().find(|line| line.contains("/child")).expect("the child is listed");
    assert!(line.contains("50kB"), "its own layer: {line}");
    let json = stage.onggi.ok(&["system", "df", "--format", "{{.Type}}={{.TotalCount}}"]);
    assert!(json.starts_with("Images=2\nContainers=1\n"), "{json}");
    stage.onggi.ok(&["rm", "user"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_system_prune_removes_what_is_not_used_and_nothing_else() {
    let stage = Stage::new();
    let child = serve_child(&stage);
    stage.onggi.ok(&["pull", &child]);
    stage.onggi.ok(&["run", "-d", "--name", "runs", "--network", "none", &stage.busybox, "sleep", "1000"]);
    stage.onggi.ok(&["run", "--name", "ended", "--label", "keep=yes", "--network", "none", &stage.busybox, "true"]);
    // Nobody answers yes.
    let asked = stage.onggi.ok(&["system", "prune"]);
    assert!(asked.starts_with("WARNING! This will remove:\n  - all stopped containers\n"), "{asked}");
    assert!(asked.ends_with("[y/N]"), "{asked}");
    let filtered = stage.onggi.ok(&["system", "prune", "-f", "--filter", "label!=keep"]);
    assert_eq!(filtered, "Total reclaimed space: 0B");
    let young = stage.onggi.ok(&["system", "prune", "-f", "--filter", "until=24h"]);
    assert_eq!(young, "Total reclaimed space: 0B");
    let text = stage.onggi.ok(&["system", "prune", "-af", "--volumes"]);
    assert!(text.contains("Deleted Containers:\n") && text.contains("Deleted Images:\nuntagged: "), "{text}");
    assert!(!text.contains("/busybox") && !text.ends_with(": 0B"), "{text}");
    assert_eq!(stage.onggi.ok(&["ps", "-a", "--format", "{{.Names}}"]), "runs");
    assert_eq!(stage.onggi.ok(&["exec", "runs", "echo", "still"]), "still");
    stage.onggi.ok(&["rm", "-f", "runs"]);
    assert!(stage.onggi.ok(&["image", "prune", "-f"]).starts_with("Total reclaimed space: 0B"));
    assert!(stage.onggi.ok(&["image", "prune", "-a", "-f"]).contains("deleted: sha256:"));
    let left = sh(&format!("find {0}/layers {0}/blobs/sha256 -type f", stage.onggi.root().display()));
    assert_eq!(left, "");
    stage.onggi.assert_nothing_left();
}

/// The one file of that name below the store's layers.
fn in_layers(onggi: &Onggi, name: &str) -> PathBuf {
    PathBuf::from(sh(&format!("find {}/layers -path '*/diff/{name}'", onggi.root().display())).trim())
}

#[test]
fn e2e_system_check_finds_every_damage_and_repair_fetches_only_that() {
    let stage = Stage::new();
    let child = serve_child(&stage);
    stage.onggi.ok(&["pull", &stage.busybox]);
    stage.onggi.ok(&["pull", &child]);
    let sound = stage.onggi.ok(&["system", "check"]);
    assert!(sound.contains("layers checked: everything is sound"), "{sound}");
    let onggi = &stage.onggi;
    // One byte of a file, its time put back; a mode; a file that is gone; a blob; an orphan.
    let own = in_layers(onggi, "own");
    let time = own.metadata().expect("the file is there").modified().expect("a time");
    let mut bytes = fs::read(&own).expect("read the file");
    bytes[49_000] ^= 1;
    fs::write(&own, bytes).expect("write the file");
    fs::File::options().write(true).open(&own).and_then(|file| file.set_modified(time)).expect("put the time back");
    sh(&format!("chmod 600 {}", in_layers(onggi, "bin/busybox").display()));
    let blob = sh(&format!("ls -S {}/blobs/sha256/* | head -1", onggi.root().display()));
    let size = fs::metadata(blob.trim()).expect("the blob is there").len();
    sh(&format!("printf x | dd of={} bs=1 seek={} conv=notrunc 2>/dev/null", blob.trim(), size / 2));
    sh(&format!("mkdir -p {}/layers/{}/diff", onggi.root().display(), "0".repeat(64)));
    let report = onggi.run(&["system", "check"]);
    assert_eq!(report.code, Some(1), "{report}");
    let name = blob.trim().rsplit('/').next().expect("a name").to_owned();
    for line in [
        format!("damaged: blob sha256:{name}"),
        ": own\n".to_owned(),
        ": bin/busybox\n".to_owned(),
        format!("orphan: layer sha256:{}", "0".repeat(64)),
    ] {
        assert!(report.stdout.contains(&line), "{line} is missing in {report}");
    }
    let before = stage.registry.asked().len();
    let repaired = onggi.run(&["system", "check", "--repair"]);
    assert_eq!(repaired.code, Some(0), "{repaired}");
    let fetched: Vec<String> =
        stage.registry.asked().split_off(before).into_iter().filter(|path| path.contains("/blobs/")).collect();
    assert!(fetched.len() == 1 && fetched[0].ends_with(&name), "only the damaged blob: {fetched:?}");
    assert!(onggi.ok(&["system", "check"]).contains("everything is sound"));
    assert_eq!(onggi.ok(&["images", "-q"]).lines().count(), 2, "repair leaves no further names");
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", &child, "wc", "-c", "/own"]), "50000 /own");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_layer_whose_directory_was_deleted_by_hand_comes_back_with_a_pull() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    sh(&format!("rm -r {}/layers/*", stage.onggi.root().display()));
    let report = stage.onggi.run(&["system", "check"]);
    assert!(report.code == Some(1) && report.stdout.contains("missing: layer sha256:"), "{report}");
    stage.onggi.ok(&["pull", &stage.busybox]);
    stage.onggi.ok(&["system", "check"]);
    assert_eq!(stage.script(&[], "echo runs"), "runs");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_layer_without_a_sound_record_is_damage_that_repair_mends_from_the_stored_blobs() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", &stage.busybox]);
    let archive = onggi.dir().join("local.tar");
    onggi.ok(&["tag", &stage.busybox, "nowhere.invalid/local:1"]);
    onggi.ok(&["save", "-o", archive.to_str().expect("a plain path"), "nowhere.invalid/local:1"]);
    onggi.ok(&["rmi", &stage.busybox]);
    let record = sh(&format!("ls {}/layers/*/layer.json | head -1", onggi.root().display()));
    let text = fs::read_to_string(record.trim()).expect("the record is there");
    let other = format!("sha256:{}", "1".repeat(64));
    let diff_id = text.split("\"diff_id\":\"").nth(1).and_then(|t| t.split('"').next()).expect("a diff_id");
    for damage in
        [None, Some(String::new()), Some(text[..text.len() / 2].to_owned()), Some(text.replace(diff_id, &other))]
    {
        match &damage {
            None => fs::remove_file(record.trim()).expect("remove the record"),
            Some(text) => fs::write(record.trim(), text).expect("write the record"),
        }
        let report = onggi.run(&["system", "check"]);
        assert!(report.code == Some(1) && report.stdout.contains(": layer.json\n"), "{damage:?}: {report}");
        if damage.is_none() {
            let load = onggi.run(&["load", "-i", archive.to_str().expect("a plain path")]);
            assert!(load.code == Some(1) && load.stderr.contains("system check --repair"), "{load}");
        }
        // No registry has it: its own blobs are enough.
        let before = stage.registry.asked().len();
        let repaired = onggi.run(&["system", "check", "--repair"]);
        assert_eq!(repaired.code, Some(0), "{damage:?}: {repaired}");
        assert_eq!(stage.registry.asked().len(), before);
        assert_eq!(fs::read_to_string(record.trim()).expect("the record is there"), text, "{damage:?}");
        assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "nowhere.invalid/local:1", "echo", "hi"]), "hi");
    }
    // What only a container has left cannot be had again, and that is said.
    onggi.ok(&["create", "--name", "left", "nowhere.invalid/local:1", "true"]);
    onggi.ok(&["rmi", "-f", "nowhere.invalid/local:1"]);
    sh(&format!("rm -r {}/layers/*", onggi.root().display()));
    let repaired = onggi.run(&["system", "check", "--repair"]);
    assert!(repaired.code == Some(1) && format!("{repaired}").contains("container left"), "{repaired}");
    onggi.ok(&["rm", "left"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_system_check_tells_what_belongs_to_nothing_and_removes_only_what_is_ours() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", "-q", &stage.busybox]);
    let (root, one, two) = (onggi.root(), "1".repeat(64), "2".repeat(64));
    let ours = [format!("blobs/sha256/{one}"), format!("containers/{two}")];
    let strange = ["blobs/sha256/extra", "blobs/sha256/dir", "layers/junk", "containers/no-id"].map(str::to_owned);
    fs::write(root.join(&ours[0]), "another digest").expect("write a blob");
    fs::write(root.join(&strange[0]), "").expect("write a file");
    for dir in strange[1..].iter().chain([&ours[1]]) {
        fs::create_dir(root.join(dir)).expect("make a directory");
    }
    let check = onggi.ok(&["system", "check"]);
    for line in strange.iter().chain([&format!("orphan: blob sha256:{one}"), &format!("orphan: container {two}")]) {
        assert!(check.contains(line.as_str()), "{line}: {check}");
    }
    assert!(!check.contains("damaged"), "what belongs to nothing is no loss: {check}");
    onggi.ok(&["system", "check", "--repair"]);
    assert!(ours.iter().all(|path| !root.join(path).exists()));
    for path in &strange {
        assert!(root.join(path).exists(), "{path}");
        sh(&format!("rm -r {}", root.join(path).display()));
    }
    assert_eq!(onggi.ok(&["system", "check"]).lines().count(), 1);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_container_whose_files_are_gone_is_damage_that_only_its_removal_ends() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", "-q", &stage.busybox]);
    onggi.ok(&["create", "--name", "sound", "--network", "none", &stage.busybox, "true"]);
    for part in ["/upper", "/rootfs.json", ""] {
        let id = onggi.ok(&["create", "--name", "lost", "--network", "none", &stage.busybox, "true"]);
        sh(&format!("rm -r {}/containers/{id}{part}", onggi.root().display()));
        for verb in
            [&["start", "lost"][..], &["diff", "lost"], &["commit", "lost"], &["export", "-o", "/dev/null", "lost"]]
        {
            let ran = onggi.run(verb);
            let says =
                ran.stderr.contains("the files of container lost are gone") && ran.stderr.contains("`onggi rm lost`");
            assert!(ran.code != Some(0) && says && !ran.stderr.contains("--repair"), "{part}: {ran}");
        }
        for check in [&["system", "check"][..], &["system", "check", "--repair"]] {
            let ran = onggi.run(check);
            let says = ran.stdout.contains("container lost: its files are gone: remove it with `onggi rm lost`");
            assert!(ran.code == Some(1) && says && !ran.stdout.contains("container sound"), "{part}: {ran}");
        }
        onggi.ok(&["rm", "lost"]);
        onggi.ok(&["system", "check"]);
    }
    onggi.ok(&["rm", "sound"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_repair_says_of_an_image_that_no_registry_had_that_it_is_to_be_made_again() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let layer = image::busybox(Flavour::Oci).layers[0].digest();
    let lose = || sh(&format!("rm {}/blobs/sha256/{}", onggi.root().display(), &layer[7..]));
    onggi.ok(&["pull", "-q", &stage.busybox]);
    lose();
    stage.registry.break_answers(&layer, onggi_tests::fake_registry::Fault::WrongContent);
    let pulled = onggi.run(&["system", "check", "--repair"]);
    assert!(pulled.code == Some(1) && !pulled.stdout.contains("loaded or made again"), "{pulled}");
    stage.registry.repair();
    onggi.ok(&["system", "check", "--repair"]);
    let archive = onggi.dir().join("a.tar").display().to_string();
    onggi.ok(&["tag", &stage.busybox, "nowhere.invalid/made:here"]);
    onggi.ok(&["save", "--format", "oci-archive", "-o", &archive, "nowhere.invalid/made:here"]);
    onggi.ok(&["rmi", "-f", &stage.busybox, "nowhere.invalid/made:here"]);
    onggi.ok(&["load", "-q", "-i", &archive]);
    lose();
    let made = onggi.run(&["system", "check", "--repair"]);
    assert!(made.code == Some(1) && made.stdout.contains("is loaded or made again"), "{made}");
    onggi.ok(&["load", "-q", "-i", &archive]);
    onggi.ok(&["system", "check"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_store_on_a_read_only_file_system_is_read_and_says_why_it_is_not_written() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", "-q", &stage.busybox]);
    onggi.ok(&["create", "--name", "kept", "--network", "none", &stage.busybox, "true"]);
    let root = onggi.root().display().to_string();
    sh(&format!("mount --bind {root} {root}; mount -o remount,bind,ro {root}"));
    for args in [
        &["run", "--rm", "--network", "none", &stage.busybox, "true"][..],
        &["tag", &stage.busybox, "other:1"],
        &["rmi", "-f", &stage.busybox],
    ] {
        let ran = onggi.run(args);
        assert!(ran.code != Some(0) && ran.stderr.contains("lies on a read-only file system"), "{ran}");
    }
    let quiet = onggi.run(&["ps", "-aq"]);
    assert!(quiet.code == Some(0) && quiet.stderr.is_empty(), "the refused container left nothing: {quiet}");
    let at = |name: &str| onggi.dir().join(name).display().to_string();
    onggi.ok(&["save", "-o", &at("a.tar"), &stage.busybox]);
    let stream = onggi.run(&["save", "--format", "oci-archive", &stage.busybox]);
    assert_eq!(stream.code, Some(0), "to a stream: {}", stream.stderr);
    onggi.ok(&["image", "copy", &stage.busybox, &format!("dir:{}", at("dir"))]);
    onggi.ok(&["image", "inspect", &stage.busybox]);
    onggi.ok(&["history", &stage.busybox]);
    onggi.ok(&["export", "-o", &at("kept.tar"), "kept"]);
    onggi.ok(&["system", "check"]);
    let registry = onggi_tests::registry::Registry::new();
    onggi.ok(&["push", &stage.busybox, &format!("docker://{}/pushed:1", registry.host())]);
    sh(&format!("umount {root}"));
    onggi.ok(&["rm", "kept"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_lost_database_costs_names_and_no_content() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let child = serve_child(&stage);
    onggi.ok(&["pull", &child]);
    onggi.ok(&["run", "--name", "work", "--network", "none", &child, "sh", "-c", "echo precious > /result"]);
    let id = onggi.ok(&["commit", "work", "mine:1"]);
    sh(&format!("for f in {}/state.db*; do head -c 4096 /dev/urandom > $f; done", onggi.root().display()));
    let damaged = onggi.run(&["images"]);
    assert!(damaged.code == Some(1) && damaged.stderr.contains("recovered:"), "{damaged}");
    sh(&format!("rm {}/state.db*", onggi.root().display()));
    let found = onggi.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let own = format!("recovered:{}", &id.trim_start_matches("sha256:")[..12]);
    assert!(found.code == Some(0) && found.stdout.contains(&own) && found.stdout.lines().count() == 2, "{found}");
    assert!(found.stderr.contains("containers/ID/upper"), "{found}");
    // What makes room takes none of it.
    let empty = onggi.dir().join("empty.tar");
    fs::write(&empty, [0; 10240]).expect("write the archive");
    onggi.ok(&["import", empty.to_str().expect("a plain path"), "tiny:1"]);
    onggi.ok(&["rmi", "tiny:1"]);
    onggi.ok(&["system", "prune", "-f"]);
    assert_eq!(onggi.run(&["system", "check", "--repair"]).code, Some(0));
    assert_eq!(sh(&format!("cat {}/containers/*/upper/result", onggi.root().display())), "precious\n");
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", &own, "cat", "/result"]), "precious");
    sh(&format!("rm -r {}/containers/*", onggi.root().display()));
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_broken_download_outlives_other_commands() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["images"]);
    let part = onggi.root().join(format!("tmp/blob-{}.part", "a".repeat(64)));
    sh(&format!("mkdir -p {0}/tmp; echo half > {1}", onggi.root().display(), part.display()));
    for round in 0..2 {
        onggi.ok(&["pull", "-q", &stage.busybox]);
        onggi.ok(&["rmi", &stage.busybox]);
        assert_eq!(part.exists(), round == 0, "a pull can go on from it for a day");
        if round == 0 {
            sh(&format!("touch -d '2 days ago' {}", part.display()));
        }
    }
    sh(&format!("echo half > {}", part.display()));
    onggi.ok(&["image", "prune", "-f"]);
    assert!(!part.exists(), "whoever prunes wants the room");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_budget_evicts_the_least_recently_used_image_and_never_a_used_one() {
    let stage = Stage::new();
    let config = stage.onggi.dir().join("onggi.toml");
    fs::write(&config, "[store]\nmax_size = \"3m\"\n").expect("write the settings");
    let mut names = Vec::new();
    for number in 0..4u8 {
        // Each a megabyte and its blob: four do not fit.
        let content: Vec<u8> =
            (0..1_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ number).collect();
        let layer = Tarball::new().file(&format!("data{number}"), 0o644, &content).finish();
        let image = ImageBuilder::new(Flavour::Oci).layer(&layer, Compression::Gzip).build();
        names.push(stage.registry.serve(&format!("image{number}"), "latest", &image));
    }
    let onggi = &stage.onggi;
    let with = |args: &[&str]| onggi.finish(onggi.command(args).env("ONGGI_CONFIG", &config));
    assert_eq!(with(&["pull", &names[0]]).code, Some(0));
    onggi.ok(&["create", "--name", "user", &names[0], "true"]);
    for name in &names[1..] {
        let pulled = with(&["pull", name]);
        assert_eq!(pulled.code, Some(0), "{pulled}");
    }
    let left = onggi.ok(&["images", "--format", "{{.Repository}}"]);
    assert!(left.contains("image0"), "a used one stays: {left}");
    assert!(left.contains("image3"), "what was just pulled stays: {left}");
    assert!(!left.contains("image1"), "the oldest unused one is gone: {left}");
    assert!(onggi.ok(&["system", "check"]).contains("everything is sound"));
    fs::write(&config, "[store]\nmaxsize = \"3m\"\n").expect("write the settings");
    let wrong = with(&["images"]);
    assert!(wrong.code != Some(0) && wrong.stderr.contains("maxsize"), "{wrong}");
    onggi.ok(&["rm", "user"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_on_a_full_disk_a_pull_fails_cleanly_and_rm_and_prune_still_work() {
    let stage = Stage::new();
    on_filesystem(&stage, "mkfs.ext4 -q -m 0", "24M");
    let onggi = &stage.onggi;
    onggi.ok(&["pull", &stage.busybox]);
    onggi.ok(&["run", "-d", "--name", "web", "--network", "none", &stage.busybox, "sleep", "1000"]);
    let child = serve_child(&stage);
    let filler = onggi.root().join("filler");
    let mut refused = 0;
    // Less and less room: the failure wanders through every write of a pull.
    for free in [0u64, 4, 8, 12, 16, 20, 24, 32, 40, 64, 96, 128, 256, 512] {
        let _ = fs::remove_file(&filler);
        sh(&format!("dd if=/dev/zero of={} bs=4k 2>/dev/null || true; sync", filler.display()));
        let size = filler.metadata().expect("the filler is there").len();
        fs::File::options()
            .write(true)
            .open(&filler)
            .and_then(|f| f.set_len(size.saturating_sub(free * 1024)))
            .expect("make room");
        let pull = onggi.run(&["pull", &child]);
        if pull.code == Some(0) {
            onggi.ok(&["rmi", &child]);
            continue;
        }
        refused += 1;
        assert!(!pull.stderr.contains("panicked") && pull.stderr.contains("space"), "{free} KiB: {pull}");
        assert_eq!(onggi.ok(&["images", "-q"]).lines().count(), 1, "{free} KiB");
    }
    assert!(refused >= 5, "only {refused} pulls met the full disk");
    sh(&format!(
        "dd if=/dev/zero of={0} bs=4k oflag=append conv=notrunc 2>/dev/null || true; dd if=/dev/zero of={0}.2 bs=512 2>/dev/null || true",
        filler.display()
    ));
    onggi.ok(&["rm", "-f", "web"]);
    onggi.ok(&["system", "prune", "-af"]);
    assert_eq!(onggi.ok(&["images", "-q"]), "");
    sh(&format!("rm -f {0} {0}.2", filler.display()));
    assert!(onggi.root().metadata().expect("the store is there").blocks() > 0);
    assert_eq!(stage.script(&[], "echo again"), "again");
    onggi.ok(&["rmi", &stage.busybox]);
    let left =
        sh(&format!("find {0}/layers {0}/tmp {0}/containers {0}/blobs/sha256 -mindepth 1", onggi.root().display()));
    assert_eq!(left, "");
    leave_filesystem(&stage);
}

#[test]
fn e2e_the_form_of_a_store_is_recorded() {
    let stage = Stage::new();
    let image = image::busybox(Flavour::Oci);
    stage.onggi.ok(&["pull", &stage.busybox]);
    assert_eq!(fs::read_to_string(stage.onggi.root().join("driver")).expect("the record is there"), "overlay\n");
    assert!(stage.onggi.root().join("blobs/sha256").join(&image.manifest.digest()[7..]).is_file());
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_cve_2014_9357_a_pull_executes_no_program_whatever_the_compression() {
    let stage = Stage::new();
    let trojan = Tarball::new()
        .file("usr/bin/gzip", 0o755, b"#!/bin/sh\ntouch /onggi-trojan\n")
        .file("usr/bin/unpigz", 0o755, b"#!/bin/sh\ntouch /onggi-trojan\n")
        .file("usr/bin/xz", 0o755, b"#!/bin/sh\ntouch /onggi-trojan\n")
        .finish();
    let xz_magic = [&b"\xfd7zXZ\0"[..], &[0; 600]].concat();
    for (at, compression) in [Compression::Plain, Compression::Gzip, Compression::Zstd].into_iter().enumerate() {
        let image = ImageBuilder::new(Flavour::Oci).layer(&trojan, compression).build();
        let name = stage.registry.serve(&format!("trojan{at}"), "latest", &image);
        let log = stage.onggi.dir().join("execve");
        let pull = stage.onggi.command(&["pull", &name]);
        let mut traced = std::process::Command::new("strace");
        traced.args(["-f", "-qq", "-e", "trace=execve,execveat", "-o"]).arg(&log).arg(pull.get_program());
        traced.args(pull.get_args()).env_clear().envs(pull.get_envs().filter_map(|(k, v)| Some((k, v?))));
        assert!(stage.onggi.finish(&mut traced).code == Some(0), "{compression:?}");
        let log = fs::read_to_string(&log).expect("strace wrote its log");
        assert_eq!(log.matches("execve").count(), 1, "only onggi itself: {log}");
    }
    // What Onggi does not decompress itself is refused, not handed to a program.
    let hostile = ImageBuilder::new(Flavour::Oci).layer(&xz_magic, Compression::Plain).build();
    let name = stage.registry.serve("xz", "latest", &hostile);
    let refused = stage.onggi.run(&["pull", &name]);
    assert!(refused.code != Some(0) && refused.stderr.contains("not a valid tar archive"), "{refused}");
    assert!(!std::path::Path::new("/onggi-trojan").exists());
    stage.onggi.assert_nothing_left();
}
