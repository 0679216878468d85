//! overlayfs by hand: several directories seen as one (Documentation/filesystems/overlayfs.rst, mount(8)).
//!
//! Request and facts → plan → apply. What the kernel would refuse with a bare EINVAL is said beforehand in words. What is
//! mounted is read back from mountinfo; what an upper directory marks, from its files.

mod apply;
mod facts;
mod marks;
mod mounted;

use std::path::{Path, PathBuf};

use onggi_spec::overlay::Directories;
use onggi_sys::trace;
use serde::{Deserialize, Serialize};

use crate::{PrimitiveError, shell};

pub use facts::{DirFacts, OverlayFacts};
pub use marks::{Mark, Marked, marks};
pub use mounted::{Overlay, overlays};

/// `OVL_MAX_STACK` of the kernel.
const MAX_LOWER: usize = 500;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayRequest {
    /// Where it is seen.
    pub target: PathBuf,
    /// What is below, topmost first.
    pub lower: Vec<PathBuf>,
    /// Where changes go.
    pub upper: Option<PathBuf>,
    /// The kernel's own directory beside the upper one.
    pub work: Option<PathBuf>,
    /// It cannot be written.
    pub read_only: bool,
    /// Further options, as `redirect_dir=on` or `volatile`.
    pub options: Vec<String>,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum OverlayOp {
    /// mkdir(2).
    Directory {
        /// The directory.
        path: PathBuf,
        /// Whose permissions and owner it gets.
        like: Option<PathBuf>,
    },
    /// The mount.
    Mount {
        /// Where it is seen.
        target: PathBuf,
        /// What is below, topmost first.
        lower: Vec<PathBuf>,
        /// Where changes go, and the kernel's directory beside it.
        upper: Option<(PathBuf, PathBuf)>,
        /// It cannot be written.
        read_only: bool,
        /// Further options.
        options: Vec<String>,
    },
    /// umount2(2).
    Unmount {
        /// Where it is seen.
        target: PathBuf,
        /// It goes from sight now, and really when nobody uses it any more (MNT_DETACH).
        lazy: bool,
    },
}

/// What will be done, in order. Empty when it is so already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayPlan {
    /// The operations.
    pub ops: Vec<OverlayOp>,
}

impl OverlayPlan {
    /// The plan for a mount.
    ///
    /// # Errors
    /// What the kernel would refuse, with its reason.
    pub fn mount(request: &OverlayRequest, facts: &OverlayFacts) -> Result<Self, PrimitiveError> {
        let upper = pair(request)?;
        if let Some(there) = &facts.mounted {
            return already(request, there);
        }
        check_lower(request, facts)?;
        let mut ops = Vec::new();
        if let Some((upper, work)) = &upper {
            check_apart(request, upper, work)?;
            check_upper(upper, work, facts)?;
            for dir in [upper, work] {
                if facts.of(dir).is_none() {
                    let like = (dir == upper).then(|| request.lower[0].clone());
                    ops.push(OverlayOp::Directory { path: dir.clone(), like });
                }
            }
        }
        match facts.of(&request.target) {
            None => ops.push(OverlayOp::Directory { path: request.target.clone(), like: None }),
            Some(target) if !target.directory => {
                return Err(refused(
                    format!("{} is no directory", request.target.display()),
                    "an overlay is mounted on a directory",
                ));
            }
            Some(_) => {}
        }
        let mut options = request.options.clone();
        if facts.user_namespace && upper.is_some() && !options.iter().any(|o| o == "userxattr") {
            options.push("userxattr".to_owned());
        }
        ops.push(OverlayOp::Mount {
            target: request.target.clone(),
            lower: request.lower.clone(),
            upper,
            read_only: request.read_only,
            options,
        });
        Ok(Self { ops })
    }

    /// The plan for an unmount: nothing where nothing is mounted.
    ///
    /// # Errors
    /// Something else is mounted there.
    pub fn unmount(target: &Path, lazy: bool, facts: &OverlayFacts) -> Result<Self, PrimitiveError> {
        if facts.mounted.is_some() {
            return Ok(Self { ops: vec![OverlayOp::Unmount { target: target.to_owned(), lazy }] });
        }
        match &facts.other {
            None => Ok(Self { ops: Vec::new() }),
            Some(other) => Err(refused(
                format!("{} is a mount of {other}, no overlay", target.display()),
                format!("umount {} unmounts it", shell::path(target)),
            )),
        }
    }

    /// One line per operation.
    pub fn words(&self) -> String {
        match self.ops.is_empty() {
            true => "nothing is to be done: it is so already\n".to_owned(),
            false => self.ops.iter().map(|op| op.words() + "\n").collect(),
        }
    }

    /// Commands of coreutils and mount(8).
    pub fn shell(&self) -> String {
        "set -eu\n".to_owned() + &self.ops.iter().map(|op| op.shell() + "\n").collect::<String>()
    }

    /// Carries it out.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn apply(&self) -> Result<(), PrimitiveError> {
        self.ops.iter().try_for_each(|op| trace::step("primitives", || op.words(), || apply::one(op)))
    }
}

fn refused(message: impl Into<String>, hint: impl Into<String>) -> PrimitiveError {
    PrimitiveError::Refused { message: message.into(), hint: hint.into() }
}

/// Upper and work come together, and there is something to stack.
fn pair(request: &OverlayRequest) -> Result<Option<(PathBuf, PathBuf)>, PrimitiveError> {
    match (&request.upper, &request.work, request.lower.len()) {
        (_, _, 0) => Err(refused("an overlay needs a lower directory", "name what is below with --lower DIR")),
        (_, _, count) if count > MAX_LOWER => {
            Err(refused(format!("{count} lower directories are too many"), format!("the kernel stacks {MAX_LOWER}")))
        }
        (Some(upper), Some(work), _) => Ok(Some((upper.clone(), work.clone()))),
        (Some(_), None, _) => Err(refused(
            "an upper directory needs a work directory",
            "--work DIR: an empty directory on the same filesystem as the upper one, in which the kernel prepares changes",
        )),
        (None, Some(_), _) => Err(refused("a work directory without an upper one does nothing", "add --upper DIR")),
        (None, None, 1) => Err(refused(
            "one lower directory alone is no overlay",
            "name a second one, or --upper and --work to write; a read-only view of one directory is mount --bind -o ro",
        )),
        (None, None, _) => Ok(None),
    }
}

/// The same overlay again is done already.
fn already(request: &OverlayRequest, there: &Overlay) -> Result<OverlayPlan, PrimitiveError> {
    if there.lower == request.lower && there.upper == request.upper && there.work == request.work {
        return Ok(OverlayPlan { ops: Vec::new() });
    }
    let target = request.target.display();
    Err(refused(
        format!("another overlay is mounted on {target} already"),
        format!("onggi overlay layers {target} shows it, onggi overlay unmount {target} takes it away"),
    ))
}

fn check_lower(request: &OverlayRequest, facts: &OverlayFacts) -> Result<(), PrimitiveError> {
    for dir in &request.lower {
        match facts.of(dir) {
            None => return Err(refused(format!("{} is not there", dir.display()), "a lower directory must exist")),
            Some(found) if !found.directory => {
                return Err(refused(format!("{} is no directory", dir.display()), "overlays stack directories"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// A directory in two places is ELOOP, or changes what is below.
fn check_apart(request: &OverlayRequest, upper: &Path, work: &Path) -> Result<(), PrimitiveError> {
    for (name, dir) in [("upper", upper), ("work", work)] {
        let meets = |lower: &&PathBuf| lower.starts_with(dir) || dir.starts_with(lower);
        if let Some(lower) = request.lower.iter().find(meets) {
            let message = match lower == dir {
                true => format!("{} cannot be a lower directory and the {name} one", dir.display()),
                false => format!("the lower {} and the {name} {} lie in each other", lower.display(), dir.display()),
            };
            return Err(refused(message, "the layers of an overlay are directories beside each other"));
        }
    }
    Ok(())
}

fn check_upper(upper: &Path, work: &Path, facts: &OverlayFacts) -> Result<(), PrimitiveError> {
    if upper.starts_with(work) || work.starts_with(upper) {
        return Err(refused(
            format!("{} and {} lie in each other", upper.display(), work.display()),
            "upper and work are two directories beside each other",
        ));
    }
    for (name, dir) in [("upper", upper), ("work", work)] {
        let Some(found) = facts.of(dir).or_else(|| facts.of(dir.parent()?)) else {
            return Err(refused(
                format!("there is no directory for {}", dir.display()),
                format!("make the one that the {name} directory is to be in"),
            ));
        };
        if !found.directory {
            return Err(refused(format!("{} is no directory", dir.display()), format!("the {name} one must be")));
        }
        if found.overlay {
            return Err(refused(
                format!("{} is on an overlay itself, where the kernel makes no {name} directory", dir.display()),
                "inside a container use a volume or a tmpfs for it: mount -t tmpfs tmpfs DIR",
            ));
        }
        if found.read_only {
            return Err(refused(
                format!("{} is on a filesystem that cannot be written", dir.display()),
                "choose a place that can be written, or leave --upper and --work out for a read-only overlay",
            ));
        }
        if let Some(user) =
            facts.used.iter().find(|used| used.upper.as_deref() == Some(dir) || used.work.as_deref() == Some(dir))
        {
            return Err(refused(
                format!("{} belongs to the overlay on {} already", dir.display(), user.target.display()),
                "two overlays that write to one directory destroy it: take another",
            ));
        }
    }
    let mount = |dir: &Path| facts.of(dir).or_else(|| facts.of(dir.parent()?)).map(|found| found.mount);
    if mount(upper) != mount(work) {
        return Err(refused(
            format!("{} and {} are on different filesystems", upper.display(), work.display()),
            "the kernel prepares a change in the work directory and renames it: put both below one mount",
        ));
    }
    Ok(())
}

impl OverlayOp {
    fn words(&self) -> String {
        match self {
            Self::Directory { path, like: None } => format!("mkdir(2) {}", path.display()),
            Self::Directory { path, like: Some(like) } => {
                format!(
                    "mkdir(2) {} with the mode and owner of {}, which the overlay shows",
                    path.display(),
                    like.display()
                )
            }
            Self::Mount { target, lower, upper, read_only, options } => {
                let below = lower.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(" over ");
                let above = upper.as_ref().map_or_else(
                    || "nothing can be written: there is no upper directory".to_owned(),
                    |(upper, work)| format!("changes go to {}, prepared in {}", upper.display(), work.display()),
                );
                let mut how = options.clone();
                how.extend(read_only.then(|| "ro".to_owned()));
                let how = if how.is_empty() { String::new() } else { format!(" ({})", how.join(", ")) };
                format!("mount(2) an overlay{how} on {}: {below}; {above}", target.display())
            }
            Self::Unmount { target, lazy: false } => format!("umount2(2) {}", target.display()),
            Self::Unmount { target, lazy: true } => {
                format!("umount2(2) {} with MNT_DETACH: unseen now, gone when nobody uses it", target.display())
            }
        }
    }

    fn shell(&self) -> String {
        match self {
            Self::Directory { path, like: None } => format!("mkdir -p {}", shell::path(path)),
            Self::Directory { path, like: Some(like) } => {
                let (path, like) = (shell::path(path), shell::path(like));
                format!(
                    "[ -d {path} ] || {{ mkdir {path}; chmod --reference={like} {path}; chown --reference={like} {path}; }}"
                )
            }
            Self::Mount { target, lower, upper, read_only, options } => {
                mount_command(target, lower, upper.as_ref(), *read_only, options)
            }
            Self::Unmount { target, lazy } => {
                format!("umount {}{}", if *lazy { "-l " } else { "" }, shell::path(target))
            }
        }
    }
}

fn mount_command(
    target: &Path,
    lower: &[PathBuf],
    upper: Option<&(PathBuf, PathBuf)>,
    read_only: bool,
    options: &[String],
) -> String {
    let upper = upper.map(|(upper, work)| (upper.as_path(), work.as_path()));
    let options = options.iter().map(String::as_str).chain(read_only.then_some("ro"));
    Directories { lower, upper }.command("overlay", options, &shell::path(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> OverlayFacts {
        let dir = DirFacts { directory: true, mount: 1, overlay: false, read_only: false };
        let dirs = ["/l1", "/l2", "/", "/t"].iter().map(|path| (PathBuf::from(path), dir)).collect();
        OverlayFacts { dirs, ..OverlayFacts::default() }
    }

    fn request() -> OverlayRequest {
        OverlayRequest {
            target: "/t".into(),
            lower: vec!["/l1".into(), "/l2".into()],
            upper: Some("/u".into()),
            work: Some("/w".into()),
            ..OverlayRequest::default()
        }
    }

    #[test]
    fn what_is_missing_is_made_and_the_script_says_the_same() {
        let plan = OverlayPlan::mount(&request(), &facts()).expect("it is possible");
        assert_eq!(
            plan.shell(),
            "set -eu\n[ -d /u ] || { mkdir /u; chmod --reference=/l1 /u; chown --reference=/l1 /u; }\nmkdir -p /w\n\
             mount -t overlay -o lowerdir=/l1:/l2,upperdir=/u,workdir=/w overlay /t\n"
        );
    }

    #[test]
    fn what_the_kernel_refuses_is_refused_with_its_reason() {
        let says = |request: OverlayRequest, facts: &OverlayFacts| {
            OverlayPlan::mount(&request, facts).expect_err("the kernel refuses it").to_string()
        };
        let base = facts();
        assert!(says(OverlayRequest { work: None, ..request() }, &base).contains("needs a work directory"));
        assert!(says(OverlayRequest { work: Some("/u/w".into()), ..request() }, &base).contains("in each other"));
        let one = OverlayRequest { lower: vec!["/l1".into()], upper: None, work: None, ..request() };
        assert!(says(one, &base).contains("alone is no overlay"));
        assert!(says(OverlayRequest { lower: vec!["/none".into()], ..request() }, &base).contains("is not there"));
        let mut other = facts();
        let dir = other.dirs[&PathBuf::from("/")];
        other.dirs.insert("/w".into(), DirFacts { mount: 2, ..dir });
        assert!(says(request(), &other).contains("different filesystems"));
        other.dirs.insert("/w".into(), DirFacts { overlay: true, ..dir });
        assert!(says(request(), &other).contains("on an overlay itself"));
        let used = Overlay { target: "/x".into(), upper: Some("/u".into()), ..Overlay::default() };
        assert!(
            says(request(), &OverlayFacts { used: vec![used], ..facts() }).contains("belongs to the overlay on /x")
        );
    }

    #[test]
    fn the_same_again_is_nothing_and_another_is_refused() {
        let there = Overlay {
            target: "/t".into(),
            lower: request().lower,
            upper: request().upper,
            work: request().work,
            ..Overlay::default()
        };
        let mounted = OverlayFacts { mounted: Some(there), ..facts() };
        assert_eq!(OverlayPlan::mount(&request(), &mounted).expect("it is there").ops, []);
        let other = OverlayRequest { lower: vec!["/l2".into()], ..request() };
        assert!(OverlayPlan::mount(&other, &mounted).is_err());
        assert_eq!(OverlayPlan::unmount(Path::new("/t"), false, &mounted).expect("it is there").ops.len(), 1);
        assert_eq!(OverlayPlan::unmount(Path::new("/t"), false, &facts()).expect("nothing is there").ops, []);
    }
}
