//! Races: somebody swaps a path for a link while containers are made on the same root filesystem. Each race has
//! 500 starts here, and 10 000 as `root_long_…`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use onggi_tests::isolated;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, makedev, mknodat};
use serde_json::json;

use crate::jar::{ESCAPED, Host, Jar};

const STARTS: usize = 500;
const LONG_STARTS: usize = 10_000;
/// Containers are made by this many threads, beside those that swap.
const WORKERS: usize = 2;
/// A hundred exchanges of some microseconds each, then a pause: several bursts fall into each start.
const BURST: usize = 100;
const PAUSE: Duration = Duration::from_micros(200);

/// Two names in one directory that are exchanged all the time.
struct Swap {
    dir: PathBuf,
    names: (&'static str, &'static str),
    /// A link that comes and goes, and where it leads.
    flicker: Option<(PathBuf, PathBuf)>,
}

impl Swap {
    fn new(dir: impl AsRef<Path>, one: &'static str, other: &'static str) -> Self {
        Self { dir: dir.as_ref().to_path_buf(), names: (one, other), flicker: None }
    }

    /// There may be something else of that name, then it stays.
    fn flicker(&self) {
        if let Some((at, target)) = &self.flicker {
            let _ = symlink(target, at);
            let _ = fs::remove_file(at);
        }
    }

    fn forever(&self, stop: &AtomicBool) -> usize {
        let dir = rustix::fs::open(&self.dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("open");
        let mut swaps = 0;
        while !stop.load(Ordering::Relaxed) {
            let (one, other) = self.names;
            rustix::fs::renameat_with(&dir, one, &dir, other, RenameFlags::EXCHANGE).expect("exchange two names");
            swaps += 1;
            self.flicker();
            if swaps % BURST == 0 {
                // With two processors the containers need their share.
                thread::sleep(PAUSE);
            }
        }
        swaps
    }
}

/// How the starts of one race ended.
#[derive(Debug, Default)]
struct Tally {
    inside: AtomicUsize,
    refused: AtomicUsize,
}

/// Makes `starts` containers while the names are swapped. A container's own script says where it finds itself:
/// 0 is inside, [`ESCAPED`] is a failed test; a refusal by the runtime is as good as a good start.
fn race(jar: &Jar, swap: &Swap, starts: usize) -> Tally {
    jar.save();
    let host = Host::look(jar);
    let (stop, next, tally) = (AtomicBool::new(false), AtomicUsize::new(0), Tally::default());
    let swaps = thread::scope(|scope| {
        let swapper = scope.spawn(|| swap.forever(&stop));
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (next, tally) = (&next, &tally);
                scope.spawn(move || {
                    while next.fetch_add(1, Ordering::Relaxed) < starts {
                        one_start(jar, worker, tally);
                    }
                })
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        let swaps = swapper.join().expect("the swapper swaps to the end");
        for result in results {
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        }
        swaps
    });
    host.assert_unchanged(jar);
    assert!(swaps > starts, "{swaps} swaps for {starts} starts are no race");
    println!("{starts} starts, {swaps} swaps: {tally:?}");
    tally
}

fn one_start(jar: &Jar, worker: usize, tally: &Tally) {
    let id = format!("{}-{worker}", jar.id);
    let done = jar.run_as(&id, &[]);
    assert_ne!(done.code, ESCAPED, "it got out: {done:?}");
    if done.code == 0 {
        tally.inside.fetch_add(1, Ordering::Relaxed);
    } else {
        done.refused();
        tally.refused.fetch_add(1, Ordering::Relaxed);
        // What is refused leaves nothing under its id.
        let _ = jar.oci(&["delete", "--force", &id]).output();
    }
}

impl Tally {
    #[track_caller]
    fn some_inside(&self) {
        assert!(self.inside.load(Ordering::Relaxed) > 0, "no container was made at all: {self:?}");
    }
}

/// A mount that did not arrive in the container has gone elsewhere.
const ARRIVED: &str = "grep -q tagged /proc/self/mountinfo || exit 42";

fn destination(starts: usize) {
    isolated();
    let mut jar = Jar::small(ARRIVED);
    jar.make_dir("rootfs/a/sub");
    jar.link("b", jar.decoy());
    jar.tmpfs("tagged", "/a/sub");
    race(&jar, &Swap::new(jar.root(), "a", "b"), starts).some_inside();
}

fn parents(starts: usize) {
    isolated();
    let mut jar = Jar::small(ARRIVED);
    let shared = jar.make_dir("shared");
    fs::create_dir(shared.join("a")).expect("make a directory");
    symlink(jar.decoy(), shared.join("b")).expect("make a link");
    jar.bind("shared", "/vol");
    // What the others make is never found: each start has to make it anew.
    jar.tmpfs("tagged", "/vol/a/x/y");
    jar.config["process"]["cwd"] = json!("/vol/a/l/o/r/k");
    // On the way there is a link, after which the way begins anew.
    symlink("w", shared.join("a/l")).expect("make a link");
    jar.script(&format!("{ARRIVED}; rm -rf /vol/a/w /vol/b/w; true"));
    // And what is to be made has just been made by somebody else, as a link.
    let flicker = Some((shared.join("a/w"), jar.decoy()));
    race(&jar, &Swap { flicker, ..Swap::new(shared, "a", "b") }, starts).some_inside();
}

fn dev_null(starts: usize) {
    isolated();
    let mut jar =
        Jar::small("for p in /proc/keys /proc/interrupts; do test $(stat -c %t:%T $p) = 1:3 || exit 42; done");
    jar.config["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/interrupts", "/proc/kcore"]);
    let node = jar.root().join("dev/null");
    mknodat(CWD, &node, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3)).expect("make a node");
    jar.link("dev/evil", "/proc/sys/kernel/core_pattern");
    race(&jar, &Swap::new(jar.root().join("dev"), "null", "evil"), starts).some_inside();
}

fn mask_target(starts: usize) {
    isolated();
    let mut jar = Jar::small("test -e /secrets/key/file && exit 42; true");
    jar.write("rootfs/secrets/key/file", "x");
    jar.link("other", jar.decoy());
    jar.config["linux"]["maskedPaths"] = json!(["/other/sub", "/proc/keys", "/secrets/key"]);
    jar.config["linux"]["readonlyPaths"] = json!(["/other", "/proc/sys"]);
    jar.make_dir("rootfs/another/sub");
    race(&jar, &Swap::new(jar.root(), "other", "another"), starts).some_inside();
}

fn dev_pts(starts: usize) {
    isolated();
    let script = "test \"$(stat -L -c %t /dev/console)\" = 88 || exit 42; \
                  grep ' /proc/' /proc/self/mountinfo | grep -q devpts && exit 42; true";
    let mut jar = Jar::small(script);
    jar.make_dir("rootfs/dev/pts");
    jar.link("dev/evil", "/proc/sys/kernel");
    jar.add_mount(json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }));
    jar.config["process"]["terminal"] = json!(true);
    race(&jar, &Swap::new(jar.root().join("dev"), "pts", "evil"), starts).some_inside();
}

fn console(starts: usize) {
    isolated();
    let script = "grep ' /proc/' /proc/self/mountinfo | grep -q devpts && exit 42; true";
    let mut jar = Jar::small(script);
    jar.make_dir("rootfs/dev/pts");
    jar.write("rootfs/dev/console", "");
    jar.link("dev/evil", "/proc/sys/kernel/core_pattern");
    jar.add_mount(json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }));
    jar.config["process"]["terminal"] = json!(true);
    race(&jar, &Swap::new(jar.root().join("dev"), "console", "evil"), starts).some_inside();
}

fn proc_redirect(starts: usize) {
    isolated();
    let script = "grep -q ' /proc/[^ ]* .*tagged' /proc/self/mountinfo && exit 42; \
                  test $(cat /proc/self/oom_score_adj) = 500 || exit 42; \
                  test $(cat /proc/sys/kernel/shm_rmid_forced) = 1 || exit 42";
    let mut jar = Jar::small(script);
    jar.add_namespace(json!({ "type": "ipc" }));
    jar.make_dir("rootfs/a/attr");
    jar.make_dir("rootfs/a/sys/kernel");
    jar.link("b", "/proc/self");
    for at in ["/a/attr", "/a/sys/kernel", "/a/fd"] {
        jar.tmpfs("tagged", at);
    }
    jar.config["process"]["oomScoreAdj"] = json!(500);
    jar.config["linux"]["sysctl"] = json!({ "kernel.shm_rmid_forced": "1" });
    race(&jar, &Swap::new(jar.root(), "a", "b"), starts).some_inside();
}

fn linked_proc(starts: usize) {
    isolated();
    // The mount goes where its directory goes, but it is on the directory and not on what a link named.
    // The two names are exchanged between two looks at them as well.
    let look = "for p in /proc /b; do test -e $p/self/mountinfo && exit 0; done";
    let jar = Jar::small(&format!("n=0; while test $n -lt 2000; do {look}; n=$((n+1)); done; exit 42"));
    jar.make_dir("rootfs/evil/self/attr");
    jar.link("b", "evil");
    race(&jar, &Swap::new(jar.root(), "proc", "b"), starts).some_inside();
}

fn working_directory(starts: usize) {
    isolated();
    let mut jar = Jar::small("test -e marker -o -e sub/marker && exit 42; true");
    jar.make_dir("rootfs/a");
    jar.link("b", jar.decoy());
    jar.config["process"]["cwd"] = json!("/a/sub");
    race(&jar, &Swap::new(jar.root(), "a", "b"), starts).some_inside();
}

macro_rules! races {
    ($($(#[$doc:meta])* $run:ident: $short:ident, $long:ident;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $short() {
            $run(STARTS);
        }

        #[test]
        #[ignore = "10 000 starts: cargo xtask test --long"]
        fn $long() {
            $run(LONG_STARTS);
        }
    )*};
}

races! {
    /// The destination of a mount.
    destination: root_cve_2021_30465_race_a_swapped_destination, root_long_cve_2021_30465_race_a_swapped_destination;
    /// Directories that are made on the way.
    parents: root_cve_2024_45310_race_swapped_parents, root_long_cve_2024_45310_race_swapped_parents;
    /// The source of masks.
    dev_null: root_cve_2025_31133_race_a_swapped_dev_null, root_long_cve_2025_31133_race_a_swapped_dev_null;
    /// What is masked or made read-only.
    mask_target: root_cve_2025_31133_race_a_swapped_masked_path, root_long_cve_2025_31133_race_a_swapped_masked_path;
    /// Where terminals come from.
    dev_pts: root_cve_2025_52565_race_a_swapped_dev_pts, root_long_cve_2025_52565_race_a_swapped_dev_pts;
    /// What the terminal is bound over.
    console: root_cve_2025_52565_race_a_swapped_console, root_long_cve_2025_52565_race_a_swapped_console;
    /// Mounts that would cover the files of /proc that are written.
    proc_redirect: root_cve_2025_52881_race_mounts_swapped_into_proc, root_long_cve_2025_52881_race_mounts_swapped_into_proc;
    /// /proc itself.
    linked_proc: root_cve_2019_19921_2023_27561_race_a_swapped_proc, root_long_cve_2019_19921_2023_27561_race_a_swapped_proc;
    /// The working directory.
    working_directory: root_cve_2024_21626_race_a_swapped_directory, root_long_cve_2024_21626_race_a_swapped_directory;
}
