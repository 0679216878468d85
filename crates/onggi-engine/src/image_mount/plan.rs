//! What mounting or unmounting an image asks of the kernel, as a list; and that list in words and as a script.
//!
//! Pure: paths come from the caller, nothing is looked up. The view is read-only, without set-user-ID programs and devices
//! (I14): it is for looking, and for copying out of it.

use std::path::{Path, PathBuf};

use onggi_spec::{overlay::Directories, shell::quote};
use onggi_storage::ImageView;
use serde::Serialize;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum MountOp {
    /// mkdir(2), private; one that exists is left as it is.
    MakeDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Layers, topmost first, as one tree: overlayfs without an upper directory.
    Overlay {
        /// What mountinfo shows as the source.
        source: String,
        /// The layers.
        lower: Vec<PathBuf>,
        /// The marks of deletions are `user.overlay.*`.
        userxattr: bool,
        /// Where.
        target: PathBuf,
    },
    /// A tree that is complete already, shown at another place.
    Bind {
        /// The tree.
        source: PathBuf,
        /// Where.
        target: PathBuf,
    },
    /// umount2(2).
    Unmount {
        /// Where.
        target: PathBuf,
        /// It disappears at once and ends when its last user is gone.
        lazy: bool,
    },
    /// rmdir(2).
    RemoveDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing but one user less, or more.
    Count {
        /// Where.
        target: PathBuf,
        /// Users from then on.
        users: u32,
    },
}

/// Operations in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountPlan {
    /// The operations.
    pub ops: Vec<MountOp>,
    /// By what the mount is known again in mountinfo: its source, or the end of its root.
    #[serde(skip)]
    pub(crate) mark: String,
}

/// Where things are.
pub(crate) struct Places<'p> {
    /// Directory of mounts without a place of their own, and of the empty directory.
    pub(crate) base: &'p Path,
    /// Where the image shall be seen.
    pub(crate) target: &'p Path,
    /// The target is ours.
    pub(crate) own: bool,
}

/// The directory that stands for "no layer": overlayfs wants two, a bind mount one.
pub(crate) fn empty(base: &Path) -> PathBuf {
    base.join("empty")
}

impl MountPlan {
    /// The view of an image at a place. `short` is the image's short id.
    pub(crate) fn mount(view: ImageView, places: &Places<'_>, short: &str, userxattr: bool) -> Self {
        let mut ops = vec![MountOp::MakeDirectory { path: places.base.to_owned() }];
        let target = places.target.to_owned();
        let none = empty(places.base);
        if places.own {
            ops.push(MountOp::MakeDirectory { path: target.clone() });
        }
        let mark = match view {
            ImageView::Tree(source) => {
                let mark = end_of(&source, 3);
                ops.push(MountOp::Bind { source, target });
                mark
            }
            ImageView::Layers(lower) if lower.is_empty() => {
                let mark = end_of(&none, 2);
                ops.push(MountOp::MakeDirectory { path: none.clone() });
                ops.push(MountOp::Bind { source: none, target });
                mark
            }
            ImageView::Layers(mut lower) => {
                if lower.len() == 1 {
                    ops.push(MountOp::MakeDirectory { path: none.clone() });
                    lower.push(none);
                }
                let source = format!("onggi-image-{short}");
                ops.push(MountOp::Overlay { source: source.clone(), lower, userxattr, target });
                source
            }
        };
        Self { ops, mark }
    }

    /// The end of a mount.
    pub(crate) fn unmount(target: &Path, lazy: bool, remove: bool) -> Self {
        let mut ops = vec![MountOp::Unmount { target: target.to_owned(), lazy }];
        if remove {
            ops.push(MountOp::RemoveDirectory { path: target.to_owned() });
        }
        Self { ops, mark: String::new() }
    }

    /// A mount that others use too.
    pub(crate) fn count(target: &Path, users: u32) -> Self {
        Self { ops: vec![MountOp::Count { target: target.to_owned(), users }], mark: String::new() }
    }

    /// A line per operation.
    pub fn words(&self) -> String {
        self.ops.iter().map(|op| words(op) + "\n").collect()
    }

    /// The same by hand.
    pub fn shell(&self) -> String {
        let lines: String = self.ops.iter().filter_map(line).map(|line| line + "\n").collect();
        format!("#!/bin/sh\nset -e\n{lines}")
    }
}

/// The last names of a path, with a slash before each.
fn end_of(path: &Path, names: usize) -> String {
    let all: Vec<_> = path.iter().map(|name| name.to_string_lossy()).collect();
    all[all.len().saturating_sub(names)..].iter().map(|name| format!("/{name}")).collect()
}

fn words(op: &MountOp) -> String {
    match op {
        MountOp::MakeDirectory { path } => {
            format!("make the directory {} (mode 0700) if there is none", path.display())
        }
        MountOp::Overlay { lower, target, .. } => {
            let list: Vec<String> = lower.iter().map(|dir| dir.display().to_string()).collect();
            format!(
                "mount {} layers as one read-only tree on {} (overlayfs, nosuid, nodev), topmost first: {}",
                lower.len(),
                target.display(),
                list.join(", ")
            )
        }
        MountOp::Bind { source, target } => {
            format!("show {} read-only at {} (bind mount, nosuid, nodev)", source.display(), target.display())
        }
        MountOp::Unmount { target, lazy: false } => format!("unmount {}", target.display()),
        MountOp::Unmount { target, lazy: true } => {
            format!("detach what is mounted on {}; it ends with its last open file", target.display())
        }
        MountOp::RemoveDirectory { path } => format!("remove the directory {}", path.display()),
        MountOp::Count { target, users } => {
            format!("leave {} mounted, and write down that {users} use it", target.display())
        }
    }
}

fn line(op: &MountOp) -> Option<String> {
    let path = |path: &Path| quote(&path.to_string_lossy());
    Some(match op {
        MountOp::MakeDirectory { path: dir } => format!("mkdir -p -m 700 {}", path(dir)),
        MountOp::Overlay { source, lower, userxattr, target } => {
            let options = ["ro", "nosuid", "nodev"].into_iter().chain(userxattr.then_some("userxattr"));
            Directories { lower, upper: None }.command(source, options, &path(target))
        }
        MountOp::Bind { source, target } => {
            let (source, target) = (path(source), path(target));
            format!("mount --bind {source} {target}\nmount -o remount,bind,ro,nosuid,nodev {target}")
        }
        MountOp::Unmount { target, lazy } => format!("umount {}{}", if *lazy { "-l " } else { "" }, path(target)),
        MountOp::RemoveDirectory { path: dir } => format!("rmdir {}", path(dir)),
        MountOp::Count { target, users } => format!("# {} stays mounted: {users} use it", target.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(view: ImageView, own: bool) -> MountPlan {
        let places = Places { base: Path::new("/run/m"), target: Path::new("/run/m/abc"), own };
        MountPlan::mount(view, &places, "abc", false)
    }

    #[test]
    fn layers_are_an_overlay_without_an_upper_directory() {
        let plan = plan(ImageView::Layers(vec!["/l/2/diff".into(), "/l/1/diff".into()]), true);
        assert_eq!(plan.mark, "onggi-image-abc");
        assert_eq!(
            plan.shell(),
            "#!/bin/sh\nset -e\nmkdir -p -m 700 /run/m\nmkdir -p -m 700 /run/m/abc\n\
             mount -t overlay -o lowerdir=/l/2/diff:/l/1/diff,ro,nosuid,nodev onggi-image-abc /run/m/abc\n"
        );
        assert!(plan.words().contains("mount 2 layers as one read-only tree on /run/m/abc"));
    }

    #[test]
    fn one_layer_gets_an_empty_one_below_so_that_its_marks_are_not_shown() {
        let plan = plan(ImageView::Layers(vec!["/l/1/diff".into()]), false);
        let MountOp::Overlay { lower, .. } = &plan.ops[2] else { panic!("{plan:?}") };
        assert_eq!(lower[..], [PathBuf::from("/l/1/diff"), PathBuf::from("/run/m/empty")]);
        assert_eq!(plan.ops[1], MountOp::MakeDirectory { path: "/run/m/empty".into() });
    }

    #[test]
    fn a_tree_is_bound_and_known_again_by_the_end_of_its_path() {
        let plan = plan(ImageView::Tree("/store/layers/ff/tree".into()), false);
        assert_eq!(plan.mark, "/layers/ff/tree");
        assert!(plan.shell().ends_with(
            "mount --bind /store/layers/ff/tree /run/m/abc\nmount -o remount,bind,ro,nosuid,nodev /run/m/abc\n"
        ));
    }

    #[test]
    fn an_image_without_layers_is_an_empty_directory() {
        let plan = plan(ImageView::Layers(Vec::new()), false);
        assert_eq!(plan.ops[2], MountOp::Bind { source: "/run/m/empty".into(), target: "/run/m/abc".into() });
        assert_eq!(plan.mark, "/m/empty");
    }

    #[test]
    fn paths_are_quoted() {
        let plan = MountPlan::unmount(Path::new("/a b"), true, true);
        assert_eq!(plan.shell(), "#!/bin/sh\nset -e\numount -l '/a b'\nrmdir '/a b'\n");
    }
}
