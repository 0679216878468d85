//! A power cut at any moment of pull, load, create, commit, rm, rmi and prune, in each of them as often: what was
//! acknowledged is there and whole, the store opens, the next command works.
//!
//! The commands run once, on a filesystem on a disk that remembers every write and flush (`onggi_tests::recorder`). Then
//! disks as a cut would leave them are made: everything up to the last flush, and none, all or some of the writes after
//! it. Each is mounted (its journal is replayed) and looked at with a fresh run root, as after a boot.

use std::{collections::BTreeSet, path::Path};

use onggi_tests::{
    Onggi,
    image::{Compression, Flavour, ImageBuilder},
    machine::sh,
    recorder::{Recorder, Recording},
    tarball::Tarball,
};

use crate::Stage;

/// Bytes of the disk: XFS wants 300 MiB; it is sparse.
const DISK: u64 = 320 << 20;

/// A small generator: a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

/// One command: where it began, where it was acknowledged, and where the next one began.
struct Step {
    name: &'static str,
    begin: usize,
    end: usize,
    next: usize,
}

struct History {
    recording: Recording,
    steps: Vec<Step>,
    images: [String; 2],
}

/// An image of some files, none of them empty.
fn serve(stage: &Stage, name: &str) -> String {
    let mut builder = ImageBuilder::new(Flavour::Oci);
    for layer in 0..2 {
        let mut tar = Tarball::new().directory("d/", 0o755);
        for file in 0..40u32 {
            let content = format!("{name} {layer} {file}\n").repeat(1 + file as usize * 20);
            tar = tar.file(&format!("d/{name}-{layer}-{file}"), 0o644, content.as_bytes());
        }
        builder = builder.layer(&tar.finish(), Compression::Gzip);
    }
    stage.registry.serve(name, "latest", &builder.build())
}

/// An archive of an image that no registry has.
fn loadable(dir: &Path) -> String {
    let tar = Tarball::new().file("loaded", 0o644, "loaded ".repeat(5000).as_bytes()).finish();
    let image = ImageBuilder::new(Flavour::Docker).layer(&tar, Compression::Plain).build();
    let manifest = r#"[{"Config":"c.json","RepoTags":["loaded:1"],"Layers":["l.tar"]}]"#;
    let whole = Tarball::new().file("c.json", 0o644, &image.config.bytes).file("l.tar", 0o644, &tar);
    let path = dir.join("loadable.tar");
    std::fs::write(&path, whole.file("manifest.json", 0o644, manifest.as_bytes()).finish()).expect("write the archive");
    path.display().to_string()
}

/// Runs the commands on a recorded disk.
fn record(stage: &Stage, mkfs: &str) -> History {
    let onggi = &stage.onggi;
    let recorder = Recorder::new(&onggi.dir().join("recorder"), &onggi.dir().join("backing"), DISK);
    let (disk, root) = (recorder.disk(), onggi.root());
    sh(&format!("{mkfs} {0}; mount -o loop {0} {1}; sync -f {1}", disk.display(), root.display()));
    let images = [serve(stage, "first"), serve(stage, "second")];
    let archive = loadable(onggi.dir());
    let mut steps = Vec::new();
    let mut step = |name: &'static str, args: &[&str]| {
        let begin = recorder.position();
        onggi.ok(args);
        let end = recorder.position();
        // They are made and removed without waiting for the disk: what they write gets there some time later.
        if ["create", "rm"].contains(&name) {
            sh(&format!("sync -f {}", root.display()));
        }
        steps.push(Step { name, begin, end, next: recorder.position() });
    };
    step("pull first", &["pull", &images[0]]);
    step("create", &["create", "--name", "web", &images[0], "x"]);
    // What a process in it would have written.
    let containers = root.join("containers");
    sh(&format!("for d in {}/*/upper; do seq 1 9000 > $d/new; seq 1 10 > $d/newer; done", containers.display()));
    step("commit", &["commit", "web", "committed:1"]);
    step("load", &["load", "-q", "-i", &archive]);
    step("pull second", &["pull", &images[1]]);
    step("rm", &["rm", "web"]);
    step("rmi first", &["rmi", &images[0]]);
    step("pull again", &["pull", &images[0]]);
    step("prune", &["system", "prune", "-af"]);
    sh(&format!("umount {}", root.display()));
    let recording = recorder.recording();
    History { recording, steps, images }
}

impl History {
    /// Acknowledged before the cut, and not yet about to be undone.
    fn holds(&self, at: usize, made: &str, undone: &str) -> bool {
        let step = |name: &str| self.steps.iter().find(|step| step.name == name).expect("the step exists");
        step(made).end <= at && at <= step(undone).begin
    }

    /// One cut, in a step or right behind it.
    fn cut(&self, random: &mut Random, kind: &str, step: &Step) {
        let at = step.begin + 1 + random.below(step.next - step.begin);
        let onggi = Onggi::new();
        let image = onggi.dir().join("disk.img");
        let style = random.below(3);
        self.recording.cut(at, &image, || style == 0 || (style == 1 && random.below(2) == 0));
        let root = onggi.root();
        sh(&format!("mount -o loop {} {}", image.display(), root.display()));
        let label = format!("{kind}, cut at {at} of {}, in {}, style {style}", self.recording.len(), step.name);
        self.look(&onggi, at, &label);
        sh(&format!("umount {}", root.display()));
        std::fs::remove_file(image).expect("remove the disk's image");
    }

    fn look(&self, onggi: &Onggi, at: usize, label: &str) {
        let listed = onggi.run(&["images", "--format", "{{.Repository}}"]);
        assert_eq!(listed.code, Some(0), "{label}: {listed}");
        let names: BTreeSet<&str> = listed.stdout.lines().collect();
        let has = |image: &String| names.iter().any(|name| image.starts_with(*name));
        if self.holds(at, "pull first", "rmi first") || self.holds(at, "pull again", "prune") {
            assert!(has(&self.images[0]), "{label}: the first image is lost: {listed}");
        }
        if self.holds(at, "pull second", "prune") {
            assert!(has(&self.images[1]), "{label}: the second image is lost: {listed}");
        }
        for (name, made) in [("committed", "commit"), ("loaded", "load")] {
            if self.holds(at, made, "prune") {
                assert!(names.contains(name), "{label}: the image of {made} is lost: {listed}");
            }
        }
        let mut check = onggi.run(&["system", "check"]);
        // A container is made without waiting for the disk: what it was is told, and its removal is all that is left to do.
        if check.stdout.contains("gone: container web: its files are gone") {
            onggi.ok(&["rm", "web"]);
            check = onggi.run(&["system", "check"]);
        }
        assert!(check.code == Some(0) && !check.stdout.contains("not verifiable"), "{label}: {check}");
        assert_eq!(empty_files(&onggi.root()), "", "{label}");
        // The next commands work, whatever was under way.
        if onggi.ok(&["ps", "-a", "--format", "{{.Names}}"]) == "web" {
            let removed = onggi.run(&["rm", "-f", "web"]);
            assert_eq!(removed.code, Some(0), "{label}: {removed}");
        }
        onggi.ok(&["pull", &self.images[0]]);
        onggi.ok(&["create", "--name", "web", &self.images[0], "x"]);
        onggi.ok(&["rm", "web"]);
        let pruned = onggi.run(&["system", "prune", "-af"]);
        assert_eq!(pruned.code, Some(0), "{label}: {pruned}");
        let left =
            sh(&format!("find {0}/layers {0}/tmp {0}/blobs/sha256 {0}/containers -mindepth 1", onggi.root().display()));
        assert_eq!(left, "", "{label}: something is left that nobody owns");
    }
}

/// Files of committed layers and blobs without content; the images have none.
fn empty_files(root: &Path) -> String {
    sh(&format!("find {0}/layers {0}/blobs/sha256 -type f -size 0 2>/dev/null || true", root.display()))
}

/// In every step as often as in the others, however little it writes.
fn cuts(count: usize) {
    let seed = std::env::var("ONGGI_POWER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let kinds = [("ext4", "mkfs.ext4 -q -F -E nodiscard"), ("xfs", "mkfs.xfs -q -f -K")];
    let mut numbers = 0..;
    for (kind, mkfs) in kinds {
        let stage = Stage::new();
        let history = record(&stage, mkfs);
        for step in &history.steps {
            assert!(step.next > step.begin, "{kind}: {} writes nothing that a cut could take", step.name);
        }
        let mut random = Random(seed);
        for number in numbers.by_ref().take(count.div_ceil(kinds.len())) {
            // A few cuts are not all in the first steps.
            history.cut(&mut random, kind, &history.steps[number * 2 % history.steps.len()]);
        }
    }
}

#[test]
fn e2e_a_power_cut_loses_nothing_that_was_acknowledged() {
    cuts(6);
}

#[test]
#[ignore = "100 cuts take minutes; run with --long"]
fn e2e_a_hundred_power_cuts_lose_nothing_that_was_acknowledged() {
    cuts(100);
}
