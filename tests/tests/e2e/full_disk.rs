//! A disk that becomes full at every moment of a command: the error says which disk and what to do, nothing is half
//! there, what makes room works on the full disk, and with room the command succeeds.
//!
//! The disk is a tmpfs with the data root and the run root on it (so the database, its shared memory, locks and records
//! meet the end too). A filler leaves 0, 1, 2 … pages free, so the failure wanders through every page that a command
//! writes. On ext4 the same happens in `store.rs`, with blocks.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use onggi_tests::{
    Onggi,
    image::{Compression, Flavour, ImageBuilder},
    machine::sh,
    tarball::Tarball,
};

use crate::Stage;

const PAGE: u64 = 4096;
/// What errors call it.
const SAYS_FULL: [&str; 3] = ["no space left on device", "no space is left on the device", "disk is full"];
/// Bytes of the disk.
const SIZE: u64 = 6 << 20;

/// The disk, below `root` and `run` of a store.
struct Disk<'s> {
    onggi: &'s Onggi,
    filler: PathBuf,
}

impl<'s> Disk<'s> {
    fn new(onggi: &'s Onggi) -> Self {
        let dir = onggi.dir().join("disk");
        sh(&format!(
            "mkdir {0}; mount -t tmpfs -o size={SIZE},mode=755 tmpfs {0}; mkdir {0}/root {0}/run
             mount --bind {0}/root {1}; mount --bind {0}/run {2}",
            dir.display(),
            onggi.root().display(),
            onggi.runroot().display()
        ));
        Disk { onggi, filler: dir.join("filler") }
    }

    /// So many pages are free, and no more.
    fn leave(&self, pages: u64) {
        let mut end = fs::metadata(&self.filler).map_or(0, |meta| meta.len());
        let file =
            File::options().write(true).create(true).truncate(false).open(&self.filler).expect("open the filler");
        while file.write_all_at(&[1; PAGE as usize], end).is_ok() {
            end += PAGE;
        }
        file.set_len(end.saturating_sub(pages * PAGE)).expect("make room");
    }

    fn empty(&self) {
        let _ = fs::remove_file(&self.filler);
    }

    /// Everything that a user would see.
    fn look(&self) -> (String, String) {
        let images = self.onggi.ok(&["images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}"]);
        (images, self.onggi.ok(&["ps", "-a", "--no-trunc", "--format", "{{.ID}}"]))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let (root, run) = (self.onggi.root(), self.onggi.runroot());
        // The private mount namespace ends with the test in any case.
        for point in [root, run, self.onggi.dir().join("disk")] {
            let _ = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Runs a command with ever more room, every `step`th page, until it succeeds. Returns how often it failed.
fn wander(stage: &Stage, disk: &Disk<'_>, args: &[&str], step: u64) -> u64 {
    let onggi = &stage.onggi;
    let before = disk.look();
    let mut pages = 0;
    let mut failed = 0;
    loop {
        disk.leave(pages);
        let ran = onggi.run(args);
        if ran.code == Some(0) {
            disk.empty();
            return failed;
        }
        failed += 1;
        let label = format!("{pages} pages free: {ran}");
        assert!(ran.code.is_some(), "it ended by itself: {label}");
        assert!(!ran.stderr.contains("panicked"), "{label}");
        assert!(SAYS_FULL.iter().any(|words| ran.stderr.to_lowercase().contains(words)), "{label}");
        let names_it =
            [onggi.root(), onggi.runroot()].iter().any(|dir| ran.stderr.contains(&dir.display().to_string()));
        assert!(names_it, "the disk is not named: {label}");
        assert!(ran.stderr.contains("hint: "), "{label}");
        disk.leave(0);
        assert_eq!(disk.look(), before, "on the full disk: {label}");
        disk.empty();
        let check = onggi.run(&["system", "check"]);
        assert_eq!(check.code, Some(0), "{label}\n{check}");
        pages += step;
        assert!(pages * PAGE < SIZE, "never enough: {label}");
    }
}

/// An image of a few pages.
fn small(stage: &Stage, name: &str) -> String {
    let noise: Vec<u8> = (0..5_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut tar = Tarball::new().directory("d/", 0o755).file("d/noise", 0o644, &noise);
    for file in 0..8 {
        tar = tar.file(&format!("d/{name}-{file}"), 0o644, name.repeat(300).as_bytes());
    }
    let image = ImageBuilder::new(Flavour::Oci).layer(&tar.finish(), Compression::Gzip).build();
    stage.registry.serve(name, "latest", &image)
}

/// Every command that writes, one after the other, each at every `step`th page.
fn every_command(step: u64) {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let (first, second) = (small(&stage, "first"), small(&stage, "second"));
    let archive = onggi.dir().join("archive.tar");
    let archive = archive.to_str().expect("a name");
    let other = Onggi::new();
    other.ok(&["pull", "-q", &second]);
    other.ok(&["save", "-o", archive, &second]);
    let disk = Disk::new(onggi);
    // A store must have been made before anything can be said about it.
    onggi.ok(&["images"]);
    let mut met = Vec::new();
    let mut command = |name: &str, args: &[&str]| met.push((name.to_owned(), wander(&stage, &disk, args, step)));
    command("pull", &["pull", "-q", &first]);
    command("load", &["load", "-q", "-i", archive]);
    command("create", &["create", "--name", "box", "--network", "none", &first, "x"]);
    sh(&format!("head -c 30000 /dev/urandom > {}/containers/$(ls {0}/containers)/upper/new", onggi.root().display()));
    command("commit", &["commit", "box", "made:1"]);
    command("import", &["import", archive, "made:2"]);
    command("tag", &["tag", &first, "other:1"]);
    command("mount", &["image", "mount", &first]);
    onggi.ok(&["image", "unmount", &first]);
    for (name, failed) in &met {
        // These write a record at most, for which the database makes room: it gives up its reserve and empties its WAL.
        let least = if ["create", "tag", "mount"].contains(&name.as_str()) { 0 } else { 1 };
        assert!(*failed >= least, "{name} never met the full disk: {met:?}");
    }
    // What makes room works without any.
    disk.leave(0);
    onggi.ok(&["rm", "box"]);
    disk.leave(0);
    onggi.ok(&["rmi", "made:1"]);
    disk.leave(0);
    onggi.ok(&["system", "prune", "-af"]);
    assert_eq!(onggi.ok(&["images", "-q"]), "");
    disk.empty();
    let left =
        sh(&format!("find {0}/layers {0}/tmp {0}/containers {0}/blobs/sha256 -mindepth 1", onggi.root().display()));
    assert_eq!(left, "");
    onggi.ok(&["pull", "-q", &first]);
    onggi.ok(&["rmi", &first]);
    drop(disk);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_workload_that_fills_the_disk_does_not_hide_how_it_ended() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let disk = Disk::new(onggi);
    onggi.ok(&["pull", "-q", &stage.busybox]);
    let fill = "dd if=/dev/zero of=/big bs=4k count=9999 2> /dev/null; echo $?";
    let ran = onggi.run(&["run", "--rm", "--network", "none", &stage.busybox, "sh", "-c", fill]);
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "1"), "its own code is told, not ours: {ran}");
    let hold = format!("{fill}; sleep 100");
    onggi.ok(&["run", "-d", "--name", "full", "--network", "none", &stage.busybox, "sh", "-c", &hold]);
    // Its log has no room either.
    let free = || rustix::fs::statvfs(onggi.root()).expect("the disk is there").f_bavail;
    onggi_tests::eventually("the disk is full", || (free() == 0).then_some(()));
    disk.leave(0);
    onggi.ok(&["kill", "full"]);
    assert_eq!(onggi.ok(&["wait", "full"]), "137");
    let why = onggi.ok(&["why", "full"]);
    assert!(why.contains("onggi kill"), "{why}");
    onggi.ok(&["rm", "full"]);
    disk.empty();
    drop(disk);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_disk_that_fills_up_at_some_page_of_a_command_leaves_nothing_half_there() {
    every_command(17);
}

#[test]
#[ignore = "every page of every command takes minutes; run with --long"]
fn e2e_a_disk_that_fills_up_at_every_page_of_a_command_leaves_nothing_half_there() {
    every_command(1);
}
