//! The guest's disk: made once per recipe, never written to afterwards.
//!
//! ```text
//! target/test-cache/vm/lock            shared while a guest runs, alone while a disk is made
//! target/test-cache/vm/<recipe>/       published by a rename: complete or absent
//!   rootfs.ext4  vmlinuz  initrd       guests write to a snapshot of their own in memory and temporary files
//! ```
//! The recipe is everything that decides about the content; another recipe has another directory, and those
//! that nobody has used for a week are removed when a new one is made.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::lock_file;
use crate::{
    Outcome, build,
    process::{command, line, run_quietly},
};

/// Debian's suite of the guest, unless `ONGGI_VM_SUITE` says another.
const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";

/// What tests use in the guest, with the package's reason.
const PACKAGES: &[&str] = &[
    // An ordinary Debian with systemd as its init, for users too.
    "systemd",
    "systemd-sysv",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "linux-image-amd64",
    "initramfs-tools",
    "kmod",
    "passwd",
    "uidmap",
    "procps",
    "util-linux",
    // What this tier is about.
    "apparmor",
    "runc",
    "crun",
    // Tools of the tests.
    "busybox-static",
    "iproute2",
    "nftables",
    "libcap2-bin",
    "jq",
    "strace",
    "e2fsprogs",
    // What the labs show beside our own commands.
    "cgroup-tools",
    "stress",
];

/// In a disk's directory: written whenever it is used.
const USED: &str = "used";

/// How long an unused disk is kept.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

const CUSTOMIZE: &str = include_str!("customize.sh");

/// Room for what tests write; the file is sparse.
const DISK_BYTES: u64 = 4 << 30;

/// A complete disk, which stays in place as long as this value lives.
pub(super) struct Image {
    /// Its directory.
    pub(super) dir: PathBuf,
    _shared: File,
}

/// The disk of this recipe; the first call takes about two minutes and needs the network.
pub(super) fn ensure() -> Outcome<Image> {
    let cache = build::target_dir().join("test-cache/vm");
    fs::create_dir_all(&cache).map_err(|e| format!("make directory {}: {e}", cache.display()))?;
    let lock = lock_file(&cache.join("lock"))?;
    let dir = cache.join(recipe());
    loop {
        lock.lock_shared().map_err(|e| format!("lock {}: {e}", cache.display()))?;
        if dir.is_dir() {
            // The time of the last use; when it cannot be kept, the disk is made again some day.
            let _ = fs::write(dir.join(USED), "");
            return Ok(Image { dir, _shared: lock });
        }
        lock.unlock().and_then(|()| lock.lock()).map_err(|e| format!("lock {}: {e}", cache.display()))?;
        if !dir.is_dir() {
            remove_unused(&cache)?;
            make(&cache, &dir)?;
        }
        // From alone to shared is not one step; whoever comes in between finds the disk or makes it again.
        lock.unlock().map_err(|e| format!("unlock {}: {e}", cache.display()))?;
    }
}

fn suite() -> String {
    std::env::var("ONGGI_VM_SUITE").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| SUITE.to_owned())
}

/// A name for everything that decides about the disk's content.
fn recipe() -> String {
    let suite = suite();
    let parts = [&suite, MIRROR, &PACKAGES.join(","), CUSTOMIZE, &DISK_BYTES.to_string()];
    format!("{suite}-{:016x}", fnv1a(parts.join("\n").as_bytes()))
}

/// A hash that is the same with every version of the toolchain (Fowler, Noll, Vo; 1a, 64 bits).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Removes what an interrupted run left, and disks that nobody has made or started for a while; another branch
/// of the same repository may have another recipe.
fn remove_unused(cache: &Path) -> Outcome {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let used = fs::metadata(entry.path().join(USED)).and_then(|meta| meta.modified());
        let unused = used.map_or(true, |at| at.elapsed().is_ok_and(|since| since > KEEP));
        if unused && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(entry.path()).map_err(|e| format!("remove {}: {e}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn make(cache: &Path, dir: &Path) -> Outcome {
    println!("making the guest's disk (once, about two minutes)");
    let start = Instant::now();
    let partial = cache.join("partial");
    let tree = partial.join("tree");
    fs::create_dir_all(&partial).map_err(|e| format!("make directory {}: {e}", partial.display()))?;
    debian(&partial, &tree)?;
    fs::write(partial.join(USED), "").map_err(|e| format!("write in {}: {e}", partial.display()))?;
    copy(&only_match(&tree.join("boot"), "vmlinuz-")?, &partial.join("vmlinuz"))?;
    copy(&tree.join("boot/initrd.onggi"), &partial.join("initrd"))?;
    ext4(&tree, &partial.join("rootfs.ext4"), DISK_BYTES)?;
    fs::remove_dir_all(&tree).map_err(|e| format!("remove {}: {e}", tree.display()))?;
    fs::rename(&partial, dir).map_err(|e| format!("publish {}: {e}", dir.display()))?;
    println!("made {} in {:.0} s", dir.display(), start.elapsed().as_secs_f64());
    Ok(())
}

fn debian(partial: &Path, tree: &Path) -> Outcome {
    let script = partial.join("customize.sh");
    fs::write(&script, CUSTOMIZE).map_err(|e| format!("write {}: {e}", script.display()))?;
    let mut make = command("mmdebstrap");
    make.args(["--quiet", "--mode=root", "--variant=minbase", "--aptopt=APT::Install-Recommends \"false\""]);
    for dir in ["man", "locale", "doc", "info"] {
        make.arg(format!("--dpkgopt=path-exclude=/usr/share/{dir}/*"));
    }
    // The kernel's package would make an initrd that nobody boots.
    make.arg("--essential-hook=echo 'do_initrd = No' > \"$1/etc/kernel-img.conf\"");
    make.arg(format!("--customize-hook=sh {} \"$1\"", script.display()));
    make.arg(format!("--include={}", PACKAGES.join(",")));
    make.arg(suite()).arg(tree).arg(MIRROR);
    let output = make.stdin(Stdio::null()).output().map_err(|e| format!("start {}: {e}", line(&make)))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let end: Vec<&str> = text.lines().rev().take(30).collect();
    let end: Vec<&str> = end.into_iter().rev().collect();
    Err(format!("`{}` ended with {}:\n{}", line(&make), output.status, end.join("\n")))
}

/// A sparse ext4 image with the content of a directory, made without mounting anything.
pub(super) fn ext4(tree: &Path, image: &Path, bytes: u64) -> Outcome {
    let file = File::create(image).map_err(|e| format!("create {}: {e}", image.display()))?;
    file.set_len(bytes).map_err(|e| format!("size {}: {e}", image.display()))?;
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", "-d"]).arg(tree).arg(image);
    run_quietly(make.stdin(Stdio::null()))
}

fn only_match(dir: &Path, prefix: &str) -> Outcome<PathBuf> {
    let entries = fs::read_dir(dir).map_err(|e| format!("read {}: {e}", dir.display()))?;
    let found = entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    found.map(|entry| entry.path()).ok_or_else(|| format!("there is no {prefix}* in {}", dir.display()))
}

fn copy(from: &Path, to: &Path) -> Outcome {
    fs::copy(from, to).map(|_| ()).map_err(|e| format!("copy {} to {}: {e}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
