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
//! Test binaries know absolute paths (`CARGO_BIN_EXE_…`, `CARGO_MANIFEST_DIR`) from when they were built. Where they
//! look for the runtime that was built with them there is the installed one: what is proven here is what users
//! have, and the unoptimised one takes twice the time under emulation (it is tested on the host).

use std::{
    collections::BTreeMap,
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
    /// What this machine has beside the usual.
    pub(super) extra: Extra,
    /// How many tests it holds.
    pub(super) tests: usize,
    _lock: File,
}

/// The longest path of a socket (unix(7)), with room for the end.
const SOCKET_PATH: usize = 100;

impl Payload {
    /// Where qemu's monitor listens; `None` where no socket can have that path.
    pub(super) fn monitor(&self) -> Option<PathBuf> {
        let socket = self.console.with_file_name("monitor");
        (socket.as_os_str().len() <= SOCKET_PATH).then_some(socket)
    }
}

/// What a machine has beside the usual.
#[derive(Default)]
pub(super) struct Extra {
    /// Disks after the swap, as qemu's `-drive` names them.
    pub(super) drives: Vec<String>,
    /// A root disk instead of the image's.
    pub(super) root: Option<PathBuf>,
    /// The disks for the system and for swap keep what the guest writes.
    pub(super) lasting: bool,
    /// Further arguments of qemu.
    pub(super) arguments: Vec<String>,
}

/// Where a file is in the guest, and which one of ours it is.
type Files = BTreeMap<PathBuf, PathBuf>;

/// A file at the path that it has here.
fn itself(file: PathBuf) -> (PathBuf, PathBuf) {
    (file.clone(), file)
}

/// A disk for these tests.
pub(super) fn for_tests(programs: &Programs, tests: Vec<Test>) -> Outcome<Payload> {
    let mut files: Files = tests.iter().map(|test| itself(PathBuf::from(&test.binary))).collect();
    files.insert(build::target_dir().join("debug/onggi-oci"), programs.runtime());
    make(programs, files, Work::Tests(tests))
}

/// A disk for one command.
pub(super) fn for_command(programs: &Programs, command: &[String]) -> Outcome<Payload> {
    make(programs, Files::new(), Work::Command(command.to_vec()))
}

/// A disk for a measurement, with the floor program.
pub(super) fn for_bench(programs: &Programs, command: &[String], floor: PathBuf) -> Outcome<Payload> {
    make(programs, Files::from([itself(floor)]), Work::Command(command.to_vec()))
}

/// A disk for one command, with programs of this machine, which are below `/payload/tree`.
pub(super) fn for_command_with(programs: &Programs, command: &[String], more: &[PathBuf]) -> Outcome<Payload> {
    make(programs, more.iter().cloned().map(itself).collect(), Work::Command(command.to_vec()))
}

/// A disk for a shell.
pub(super) fn for_shell(programs: &Programs) -> Outcome<Payload> {
    make(programs, Files::new(), Work::Shell)
}

fn make(programs: &Programs, mut files: Files, work: Work) -> Outcome<Payload> {
    let dir = build::target_dir().join("vm");
    let tree = dir.join("tree");
    fs::create_dir_all(&dir).map_err(|e| format!("make directory {}: {e}", dir.display()))?;
    let lock = lock_file(&dir.join("lock"))?;
    lock.lock().map_err(|e| format!("lock {}: {e}", dir.display()))?;
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|e| format!("remove {}: {e}", tree.display()))?;
    }
    let installed = [programs.prefix.join("bin/onggi"), programs.runtime()];
    // A measurement of the runtime alone does not build the other.
    files.extend(installed.into_iter().filter(|program| program.is_file()).map(itself));
    files.extend(sources()?.into_iter().map(itself));
    let mut bytes = place(&this_program()?, &tree.join("xtask"))?;
    for (there, here) in &files {
        bytes += place(here, &tree.join("tree").join(there.strip_prefix("/").unwrap_or(there)))?;
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
    Ok(Payload { disk, swap, console: dir.join("console.log"), extra: Extra::default(), tests, _lock: lock })
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
    vec![
        ("ONGGI_TEST_PREFIX".to_owned(), prefix.to_string()),
        ("CARGO_TARGET_DIR".to_owned(), build::target_dir().display().to_string()),
        ("PATH".to_owned(), format!("{prefix}/bin:{prefix}/libexec/onggi:{SYSTEM_PATH}")),
    ]
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
