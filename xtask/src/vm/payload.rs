//! The second disk: programs, test binaries and sources at the paths that they have on this machine.
//!
//! ```text
//! target/vm/tree/xtask                 this very program, which is the guest's runner
//! target/vm/tree/job.json              protocol.rs
//! target/vm/tree/tree/<absolute path>  hard links; bind-mounted at <absolute path> in the guest
//! target/vm/payload.ext4               the same as a disk
//! target/vm/swap.raw                   empty
//! target/vm/lock                       held while a guest runs from this target directory
//! ```
//! Test binaries know absolute paths (`CARGO_BIN_EXE_…`, `CARGO_MANIFEST_DIR`) from when they were built.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
};

use super::{
    Programs, lock_file,
    protocol::{Job, Test, Work},
    rootfs,
};
use crate::{
    Outcome, build,
    process::{command, read, workspace},
};

/// This program in the guest.
pub(super) const RUNNER: &str = "/payload/xtask";

/// Beyond the content: file system structures.
const SPARE_BYTES: u64 = 64 << 20;

/// Enough for the tests of swap limits; a sparse file.
const SWAP_BYTES: u64 = 256 << 20;

/// A disk that is ready, which stays as it is while this value lives.
pub(super) struct Payload {
    /// The image.
    pub(super) disk: PathBuf,
    /// An empty disk on which the guest swaps.
    pub(super) swap: PathBuf,
    /// Where the guest's console is logged.
    pub(super) console: PathBuf,
    /// How many tests it holds.
    pub(super) tests: usize,
    _lock: File,
}

/// A disk for these tests.
pub(super) fn for_tests(programs: &Programs, tests: Vec<Test>) -> Outcome<Payload> {
    let mut files: BTreeSet<PathBuf> = tests.iter().map(|test| PathBuf::from(&test.binary)).collect();
    // Integration tests start the program of their own package.
    let debug = build::target_dir().join("debug");
    files.extend(["onggi-oci", "onggi"].map(|name| debug.join(name)).into_iter().filter(|file| file.is_file()));
    make(programs, files, Work::Tests(tests))
}

/// A disk for one command.
pub(super) fn for_command(programs: &Programs, command: &[String]) -> Outcome<Payload> {
    make(programs, BTreeSet::new(), Work::Command(command.to_vec()))
}

/// A disk for a measurement, with the floor program.
pub(super) fn for_bench(programs: &Programs, command: &[String], floor: PathBuf) -> Outcome<Payload> {
    make(programs, BTreeSet::from([floor]), Work::Command(command.to_vec()))
}

/// A disk for a shell.
pub(super) fn for_shell(programs: &Programs) -> Outcome<Payload> {
    make(programs, BTreeSet::new(), Work::Shell)
}

fn make(programs: &Programs, mut files: BTreeSet<PathBuf>, work: Work) -> Outcome<Payload> {
    let dir = build::target_dir().join("vm");
    let tree = dir.join("tree");
    fs::create_dir_all(&dir).map_err(|e| format!("make directory {}: {e}", dir.display()))?;
    let lock = lock_file(&dir.join("lock"))?;
    lock.lock().map_err(|e| format!("lock {}: {e}", dir.display()))?;
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|e| format!("remove {}: {e}", tree.display()))?;
    }
    let prefixes: Vec<&PathBuf> =
        [Some(&programs.prefix), programs.failpoints.as_ref()].into_iter().flatten().collect();
    for prefix in &prefixes {
        let programs = [prefix.join("bin/onggi"), prefix.join("libexec/onggi/onggi-oci")];
        // A measurement of the runtime alone does not build the other.
        files.extend(programs.into_iter().filter(|program| program.is_file()));
    }
    files.extend(sources()?);
    let mut bytes = place(&this_program()?, &tree.join("xtask"))?;
    for file in &files {
        bytes += place(file, &tree.join("tree").join(file.strip_prefix("/").unwrap_or(file)))?;
    }
    let tests = if let Work::Tests(tests) = &work { tests.len() } else { 0 };
    let job = Job { mounts: mounts(), env: environment(programs), work };
    let file = tree.join("job.json");
    fs::write(&file, job.to_json().to_string()).map_err(|e| format!("write {}: {e}", file.display()))?;
    let disk = dir.join("payload.ext4");
    rootfs::ext4(&tree, &disk, (bytes + bytes / 8 + SPARE_BYTES).next_multiple_of(1 << 20))?;
    fs::remove_dir_all(&tree).map_err(|e| format!("remove {}: {e}", tree.display()))?;
    let swap = dir.join("swap.raw");
    let file = File::create(&swap).map_err(|e| format!("create {}: {e}", swap.display()))?;
    file.set_len(SWAP_BYTES).map_err(|e| format!("size {}: {e}", swap.display()))?;
    Ok(Payload { disk, swap, console: dir.join("console.log"), tests, _lock: lock })
}

fn this_program() -> Outcome<PathBuf> {
    std::env::current_exe().map_err(|e| format!("find this program: {e}"))
}

/// Tests read fixtures of the repository.
fn sources() -> Outcome<Vec<PathBuf>> {
    let list = read(command("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let root = workspace();
    let files = list.lines().map(|file| root.join(file));
    Ok(files.filter(|file| file.symlink_metadata().is_ok_and(|meta| meta.is_file())).collect())
}

/// The two trees that appear in the guest; one when the target directory is in the workspace.
fn mounts() -> Vec<String> {
    let (workspace, target) = (workspace(), build::target_dir());
    let roots = if target.starts_with(&workspace) { vec![workspace] } else { vec![workspace, target] };
    roots.iter().map(|root| root.display().to_string()).collect()
}

fn environment(programs: &Programs) -> Vec<(String, String)> {
    let prefix = programs.prefix.display();
    let mut env = vec![
        ("ONGGI_TEST_PREFIX".to_owned(), prefix.to_string()),
        ("CARGO_TARGET_DIR".to_owned(), build::target_dir().display().to_string()),
        ("PATH".to_owned(), format!("{prefix}/bin:{prefix}/libexec/onggi:{SYSTEM_PATH}")),
    ];
    if let Some(failpoints) = &programs.failpoints {
        env.push(("ONGGI_TEST_FAILPOINTS_PREFIX".to_owned(), failpoints.display().to_string()));
    }
    env
}

const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Links a file into the tree, or copies it from another file system; its size.
fn place(from: &Path, to: &Path) -> Outcome<u64> {
    let dir = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(|e| format!("make directory {}: {e}", dir.display()))?;
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).map_err(|e| format!("copy {} to {}: {e}", from.display(), to.display()))?;
    }
    let size = fs::metadata(to).map_err(|e| format!("stat {}: {e}", to.display()))?.len();
    // A file takes whole blocks, and its directory entry some space.
    Ok(size.next_multiple_of(4096) + 512)
}
