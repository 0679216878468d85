//! Carries the operations out.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use onggi_spec::overlay::{Directories, escaped};
use onggi_sys::{
    Errno, Result, SysContext as _, SysError,
    mount::{self, FsContext, MountFlags, attr},
};
use rustix::{
    fs::{Mode, OFlags},
    mount::UnmountFlags,
};

use super::OverlayOp;
use crate::PrimitiveError;

/// What one string of fsconfig(2) may hold.
const LONGEST: usize = 255;

pub(super) fn one(op: &OverlayOp) -> std::result::Result<(), PrimitiveError> {
    let done = match op {
        OverlayOp::Directory { path, like } => directory(path, like.as_deref()),
        OverlayOp::Mount { target, lower, upper, read_only, options } => {
            mount(target, lower, upper.as_ref(), *read_only, options)
        }
        OverlayOp::Unmount { target, lazy } => return unmount(target, *lazy),
    };
    done.map_err(|source| explain(op, source))
}

/// The kernel's own words are in the error; what they mean for the user is added.
fn explain(op: &OverlayOp, source: SysError) -> PrimitiveError {
    let operation = op.words();
    if source.to_string().contains("Unknown parameter") {
        let (message, hint) = (format!("cannot {operation}: {source}"), "overlayfs of this kernel has no such option");
        return PrimitiveError::Refused { message, hint: hint.to_owned() };
    }
    let hint = match source.errno {
        Errno::PERM => "mounting needs root, or a user namespace: onggi ns run --map-root-user --mount …",
        Errno::NODEV => "this kernel has no overlayfs: modprobe overlay",
        Errno::INVAL => {
            "the upper directory's filesystem must keep extended attributes and file types (ext4, xfs, btrfs, tmpfs)"
        }
        Errno::LOOP => "an overlay is stacked on overlays: the kernel allows two on each other",
        Errno::STALE => "the upper directory was used with other lower ones: take an empty one",
        Errno::BUSY => "the upper or work directory is in use by another overlay",
        _ => return PrimitiveError::Sys { operation, source },
    };
    PrimitiveError::Refused { message: format!("cannot {operation}: {source}"), hint: hint.to_owned() }
}

fn directory(path: &Path, like: Option<&Path>) -> Result<()> {
    let made = match like {
        None => fs::create_dir_all(path),
        Some(_) => fs::create_dir(path),
    };
    match made {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => {
            let errno = Errno::from_raw_os_error(e.raw_os_error().unwrap_or(Errno::IO.raw_os_error()));
            return Err(SysError::new("mkdir", format!("{path:?}"), errno));
        }
        Ok(()) => {}
    }
    let Some(like) = like else { return Ok(()) };
    let model = onggi_sys::fs::stat(onggi_sys::fs::open_dir(like)?.as_fd())?;
    let made = onggi_sys::fs::open_dir(path)?;
    match onggi_sys::fs::chown(made.as_fd(), model.st_uid, model.st_gid) {
        // Somebody else's directory can be below; what is above is ours.
        Err(e) if e.errno != Errno::PERM && e.errno != Errno::INVAL => return Err(e),
        _ => {}
    }
    onggi_sys::fs::chmod(made.as_fd(), model.st_mode & 0o7777)
}

fn mount(
    target: &Path,
    lower: &[PathBuf],
    upper: Option<&(PathBuf, PathBuf)>,
    read_only: bool,
    options: &[String],
) -> Result<()> {
    let paths = lower.iter().chain(upper.into_iter().flat_map(|(upper, work)| [upper, work]));
    let short = paths.into_iter().all(|path| path.as_os_str().len() <= LONGEST);
    if !short {
        return by_one_string(target, lower, upper, read_only, options);
    }
    let attributes = if read_only { attr::RDONLY } else { 0 };
    match by_keys(lower, upper, options, attributes) {
        Ok(made) => {
            let at = rustix::fs::open(target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            mount::attach(made.as_fd(), at.sys("open", || format!("{target:?}"))?.as_fd())
        }
        // Before Linux 6.6 there is no `lowerdir+`. Where that is not the reason, the first error tells more.
        Err(first) if first.errno == Errno::INVAL => {
            by_one_string(target, lower, upper, read_only, options).map_err(|_| first)
        }
        Err(e) => Err(e),
    }
}

fn by_keys(
    lower: &[PathBuf],
    upper: Option<&(PathBuf, PathBuf)>,
    options: &[String],
    attributes: u64,
) -> Result<std::os::fd::OwnedFd> {
    let context = FsContext::open("overlay")?;
    context.set("source", b"overlay")?;
    lower.iter().try_for_each(|dir| context.set("lowerdir+", dir.as_os_str().as_bytes()))?;
    if let Some((upper, work)) = upper {
        for (key, dir) in [("upperdir", upper), ("workdir", work)] {
            // Unlike those of `lowerdir+`, its backslashes are taken away.
            context.set(key, &escaped(dir))?;
        }
    }
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => context.set(key, value.as_bytes())?,
            None => context.set_flag(option)?,
        }
    }
    context.mount(attributes)
}

/// mount(2), whose options are one page in all.
fn by_one_string(
    target: &Path,
    lower: &[PathBuf],
    upper: Option<&(PathBuf, PathBuf)>,
    read_only: bool,
    options: &[String],
) -> Result<()> {
    let upper = upper.map(|(upper, work)| (upper.as_path(), work.as_path()));
    let data = Directories { lower, upper }.data(options);
    let data = CString::new(data).map_err(|_| SysError::new("mount", "overlay, NUL in a path", Errno::INVAL))?;
    let before = std::env::current_dir();
    rustix::process::chdir(target).sys("chdir", || format!("{target:?}"))?;
    let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let done = mount::mount_on_cwd(Path::new("overlay"), "overlay", flags, &data);
    if let Ok(before) = before {
        rustix::process::chdir(&before).sys("chdir", || format!("{before:?}"))?;
    }
    done
}

fn unmount(target: &Path, lazy: bool) -> std::result::Result<(), PrimitiveError> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() } | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(target, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => {
            let users = users(target).into_iter().map(|pid| pid.to_string()).collect::<Vec<_>>().join(", ");
            let by = if users.is_empty() { String::new() } else { format!(" by process {users}") };
            Err(PrimitiveError::Refused {
                message: format!("{} is in use{by}", target.display()),
                hint: "let them leave it, or take it out of sight with --lazy".to_owned(),
            })
        }
        Err(e) => {
            let source = SysError::new("umount2", format!("{target:?}"), e);
            Err(PrimitiveError::Sys { operation: format!("unmount {}", target.display()), source })
        }
    }
}

/// Processes that have their root, working directory or an open file below, as far as the caller may see that.
fn users(target: &Path) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for process in crate::processes().unwrap_or_default() {
        let dir = PathBuf::from(format!("/proc/{}", process.pid));
        let open = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut links = ["cwd", "root", "exe"].map(|name| dir.join(name)).into_iter().chain(open);
        if links.any(|link| fs::read_link(link).is_ok_and(|to| to.starts_with(target))) {
            found.insert(process.pid);
        }
    }
    found
}
