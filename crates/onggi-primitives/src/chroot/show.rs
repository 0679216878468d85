//! The operations in words, and as commands. `$R` is the new root in the script.

use std::path::Path;

use super::RootOp;
use crate::shell;

/// Functions of the script's first part.
pub(crate) const FILL: &str = "\
copy() { [ -e \"$R$2\" ] && cmp -s \"$1\" \"$R$2\" || { mkdir -p \"$(dirname \"$R$2\")\"; cp --preserve=mode,xattr \"$1\" \"$R$2\"; }; }
";

/// Functions of its second part, which runs in the new namespaces.
pub(crate) const INSIDE: &str = "\
target() { # make $2 in the root what $1 is
  if [ -d \"$1\" ]; then mkdir -p \"$R$2\"
  elif [ ! -e \"$R$2\" ]; then mkdir -p \"$(dirname \"$R$2\")\"; : > \"$R$2\"; fi
}
";

/// One operation as a sentence.
pub(crate) fn words(op: &RootOp) -> String {
    match op {
        RootOp::Directory { path, mode, .. } => format!("mkdir(2) {} with mode {mode:04o}", path.display()),
        RootOp::Link { path, target, .. } => format!("symlink(2) {} to {}", path.display(), target.display()),
        RootOp::Copy { from, path, .. } if from == path => format!("copy {} unless it is there", from.display()),
        RootOp::Copy { from, path, .. } => {
            format!("copy {} to {} unless a link leads there", from.display(), path.display())
        }
        RootOp::Base { root } => {
            format!("mount(2) {0} on itself with all below (MS_BIND|MS_REC): a root must be a mount", root.display())
        }
        RootOp::Proc { .. } => "mount(2) a new proc on /proc (nosuid, nodev, noexec): it shows the new pid namespace".to_owned(),
        RootOp::Dev { .. } => {
            "mount(2) a tmpfs on /dev, and in it null, zero, full, random, urandom and tty of the host, a new devpts, and shm".to_owned()
        }
        RootOp::Sys { new: true, .. } => "mount(2) a new sysfs on /sys, read-only".to_owned(),
        RootOp::Sys { new: false, .. } => {
            "mount(2) the host's /sys on /sys, read-only: a new one needs a network namespace of one's own".to_owned()
        }
        RootOp::Bind { source, target, read_only, .. } => {
            let how = if *read_only { ", read-only" } else { "" };
            format!("mount(2) {} on {} (MS_BIND|MS_REC){how}", source.display(), target.display())
        }
        RootOp::ReadOnly { .. } => "mount_setattr(2): the root itself becomes read-only".to_owned(),
        RootOp::Enter { root } => {
            format!("pivot_root(2): {} becomes the root, and the old root is unmounted (MNT_DETACH)", root.display())
        }
    }
}

/// One operation as a line of script.
pub(crate) fn line(op: &RootOp) -> String {
    let in_root = |path: &Path| format!("\"$R\"{}", shell::path(path));
    match op {
        RootOp::Directory { path, mode, .. } => {
            format!("[ -d {0} ] || mkdir -m {mode:04o} {0}\n", in_root(path))
        }
        RootOp::Link { path, target, .. } => {
            format!("[ -e {0} ] || [ -L {0} ] || ln -s {1} {0}\n", in_root(path), shell::path(target))
        }
        RootOp::Copy { from, path, .. } => format!("copy {} {}\n", shell::path(from), shell::path(path)),
        RootOp::Base { .. } => "mount --rbind \"$R\" \"$R\"\n".to_owned(),
        RootOp::Proc { .. } => {
            "mkdir -p \"$R/proc\"; mount -t proc -o nosuid,nodev,noexec proc \"$R/proc\"\n".to_owned()
        }
        RootOp::Dev { .. } => "\
mkdir -p \"$R/dev\"; mount -t tmpfs -o nosuid,noexec,mode=755,size=65536k tmpfs \"$R/dev\"
for d in null zero full random urandom tty; do : > \"$R/dev/$d\"; mount --bind \"/dev/$d\" \"$R/dev/$d\"; done
mkdir \"$R/dev/pts\" \"$R/dev/shm\"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,nosuid,noexec devpts \"$R/dev/pts\"
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=65536k tmpfs \"$R/dev/shm\"
ln -s /proc/self/fd \"$R/dev/fd\"; ln -s pts/ptmx \"$R/dev/ptmx\"
ln -s /proc/self/fd/0 \"$R/dev/stdin\"; ln -s /proc/self/fd/1 \"$R/dev/stdout\"; ln -s /proc/self/fd/2 \"$R/dev/stderr\"
"
        .to_owned(),
        RootOp::Sys { new: true, .. } => {
            "mkdir -p \"$R/sys\"; mount -t sysfs -o ro,nosuid,nodev,noexec sysfs \"$R/sys\"\n".to_owned()
        }
        RootOp::Sys { new: false, .. } => {
            format!("mkdir -p \"$R/sys\"; mount --rbind /sys \"$R/sys\"\n{}", read_only_tree("\"$R/sys\""))
        }
        RootOp::Bind { source, target, read_only, .. } => {
            let (source, name, at) = (shell::path(source), shell::path(target), in_root(target));
            let read_only = if *read_only { read_only_tree(&at) } else { String::new() };
            format!("target {source} {name}; mount --rbind {source} {at}\n{read_only}")
        }
        RootOp::ReadOnly { .. } => "mount -o remount,bind,ro \"$R\"\n".to_owned(),
        // After pivot_root(2) no program of the host would be left to unmount the old root: switch_root(8) does this.
        RootOp::Enter { .. } => "cd \"$R\"; mount --move . /\n".to_owned(),
    }
}

/// `-l` leaves blanks in paths as they are, and so the path stands last. mount(8) keeps the other options of each mount: in a user namespace they are locked.
fn read_only_tree(at: &str) -> String {
    format!(
        "findmnt -Rlno VFS-OPTIONS,TARGET {at} | while read -r o t; do mount -o \"remount,bind,ro${{o#r[wo]}}\" \"$t\"; done\n"
    )
}
