//! Every call of a command that needs the disk fails once: the nth write, the nth new name, the nth flush. The error is named, nothing
//! is half there, and the same command works the next time.
//!
//! `full_disk.rs` fills a disk page by page, so it meets the calls that take room; here strace(1) lets the kernel answer ENOSPC or
//! EIO to one call after the other, on an empty store each time, so it meets all of them, also those that would still have
//! found room. A thread counts for itself: the nth call of every thread that comes so far fails.

use std::{fs, path::Path, process::Command};

use onggi_tests::{
    Onggi,
    image::{Compression, Flavour, ImageBuilder},
    machine::sh,
    tarball::Tarball,
};

use crate::Stage;

/// Calls that fail together, the error, and how messages say it.
type Kind = (&'static str, &'static str, &'static [&'static str]);
const FULL: &[&str] = &["no space left on device", "no space is left on the device", "disk is full"];
const KINDS: [Kind; 3] = [
    ("write,pwrite64,writev,pwritev,fallocate,ftruncate", "ENOSPC", FULL),
    (
        "mkdir,mkdirat,mknodat,symlinkat,link,linkat,rename,renameat,renameat2,setxattr,lsetxattr,fsetxattr",
        "ENOSPC",
        FULL,
    ),
    ("fsync,fdatasync,syncfs", "EIO", &["input/output error", "i/o error"]),
];
/// More calls of one thread than any of the commands makes.
const NEVER: usize = 3000;

/// One command on a store of its own.
struct Case<'c> {
    stage: &'c Stage,
    args: Vec<&'c str>,
    /// What must have been done before.
    before: Vec<Vec<&'c str>>,
    /// The image that the command makes.
    image: &'c str,
}

impl Case<'_> {
    fn onggi(&self) -> &Onggi {
        &self.stage.onggi
    }

    /// An empty store and run root, then what comes before.
    fn renew(&self) {
        let onggi = self.onggi();
        sh(&format!("rm -rf {0} {1}; mkdir {0} {1}", onggi.root().display(), onggi.runroot().display()));
        for args in &self.before {
            onggi.ok(args);
        }
    }

    /// Runs the command with the nth of those calls failing. False when no thread makes so many.
    fn fails_at(&self, number: usize, kind: Kind) -> bool {
        let (calls, error, words) = kind;
        let onggi = self.onggi();
        self.renew();
        let log = onggi.dir().join("strace.log");
        let command = onggi.command(&self.args);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(&log).args(["-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:error={error}:when={number}")]);
        strace.arg(command.get_program()).args(command.get_args());
        strace.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        let ran = onggi.finish(&mut strace);
        let log = fs::read_to_string(&log).expect("strace wrote its log");
        let failed: Vec<&str> = log.lines().filter(|line| line.contains("(INJECTED)")).collect();
        if failed.is_empty() {
            assert_eq!(ran.code, Some(0), "nothing was made to fail: {ran}");
            return false;
        }
        let label = format!("call {number} of {calls}: {failed:#?}\n{ran}");
        // What it prints is printed when everything is done.
        let mute = failed.iter().any(|line| line.contains("write(1, ") || line.contains("write(2, "));
        assert!(ran.code.is_some() && !ran.stderr.contains("panicked"), "{label}");
        if ran.code != Some(0) && !mute {
            let said = ran.stderr.to_lowercase();
            assert!(words.iter().any(|word| said.contains(word)), "the error is not named: {label}");
        }
        self.look(ran.code == Some(0), &label);
        true
    }

    /// The store is sound whatever happened, has the image when that was said, and takes it now.
    fn look(&self, made: bool, label: &str) {
        let onggi = self.onggi();
        let listed = onggi.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let has = || listed.lines().any(|name| name == self.image);
        assert!(!made || has(), "{label}\nimages: {listed}");
        let check = onggi.run(&["system", "check"]);
        assert_eq!(check.code, Some(0), "{label}\n{check}");
        let again = onggi.run(&self.args);
        assert_eq!(again.code, Some(0), "once more: {label}\n{again}");
    }

    /// The first, then every `step`th call of each kind. How many were met.
    fn all(&self, step: usize) -> Vec<usize> {
        KINDS
            .iter()
            .map(|kind| {
                let numbers = (1..NEVER).step_by(step);
                let met = numbers.take_while(|number| self.fails_at(*number, *kind)).count();
                assert!(met * step < NEVER - step, "the command never ended: {kind:?}");
                met
            })
            .collect()
    }
}

/// An image of two layers with every sort of entry, and an archive of it.
fn image(stage: &Stage) -> (String, String) {
    let noise: Vec<u8> = (0..90_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let lower = Tarball::new().directory("d/", 0o755).file("d/noise", 0o644, &noise).file("d/gone", 0o644, b"x");
    let upper = Tarball::new()
        .file("d/own", 0o600, b"own")
        .symlink("d/link", "noise")
        .hard_link("d/hard", "d/own")
        .file("d/.wh.gone", 0o644, b"")
        .directory("e/", 0o700);
    let image = ImageBuilder::new(Flavour::Oci)
        .layer(&lower.finish(), Compression::Gzip)
        .layer(&upper.finish(), Compression::Zstd)
        .build();
    let name = stage.registry.serve("calls", "latest", &image);
    let archive = stage.onggi.dir().join("archive.tar").display().to_string();
    let other = Onggi::new();
    other.ok(&["pull", "-q", &name]);
    other.ok(&["save", "-q", "-o", &archive, &name]);
    assert!(Path::new(&archive).exists());
    (name, archive)
}

fn pull_case(stage: &Stage, step: usize) {
    let (name, _) = image(stage);
    let case = Case { stage, args: vec!["pull", "-q", &name], before: Vec::new(), image: &name };
    let met = case.all(step);
    assert!(met.iter().all(|count| *count > 0), "{met:?}");
}

#[test]
fn e2e_a_pull_whose_nth_call_to_the_disk_fails_leaves_nothing_half_there() {
    pull_case(&Stage::new(), 9);
}

#[test]
#[ignore = "every call of pull, load and commit takes minutes; run with --long"]
fn e2e_every_call_to_the_disk_may_fail_in_pull_load_and_commit() {
    let stage = Stage::new();
    pull_case(&stage, 1);
    let (name, archive) = image(&stage);
    Case { stage: &stage, args: vec!["load", "-q", "-i", &archive], before: Vec::new(), image: &name }.all(1);
    let before = vec![vec!["pull", "-q", &name], vec!["create", "--name", "box", "--network", "none", &name, "x"]];
    let args = vec!["commit", "box", "made:1"];
    Case { stage: &stage, args, before, image: "made:1" }.all(1);
}
