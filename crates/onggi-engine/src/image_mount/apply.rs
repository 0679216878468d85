//! The operations of a [`MountPlan`](super::MountPlan), done.

use std::{
    fs::DirBuilder,
    io,
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use onggi_spec::overlay::Directories;
use onggi_sys::{
    Errno, SysError, fs,
    mount::{self, AttributeChange, Depth, FsContext, MountFlags, attr},
};

use super::plan::MountOp;
use crate::EngineError;

/// What the view may not be used for.
const ATTRIBUTES: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV;
/// mount(2) takes a page of options.
const MAX_OPTIONS: usize = 4095;

/// Does one operation.
///
/// # Errors
/// The kernel's.
pub(super) fn apply(op: &MountOp) -> Result<(), EngineError> {
    match op {
        MountOp::MakeDirectory { path } => make_directory(path),
        MountOp::Overlay { source, lower, userxattr, target } => {
            overlay(source, lower, *userxattr, target).map_err(at("mount the image on", target))
        }
        MountOp::Bind { source, target } => bind(source, target).map_err(at("mount the image on", target)),
        MountOp::Unmount { target, lazy } => unmount(target, *lazy),
        MountOp::RemoveDirectory { path } => match std::fs::remove_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(EngineError::WriteFile { path: path.clone(), source: e })
            }
            _ => Ok(()),
        },
        MountOp::Count { .. } => Ok(()),
    }
}

fn at(what: &str, path: &Path) -> impl FnOnce(SysError) -> EngineError {
    let op = format!("cannot {what} {}", path.display());
    move |source| EngineError::Sys { op, source }
}

fn make_directory(path: &Path) -> Result<(), EngineError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(EngineError::MakeDir { path: path.to_owned(), source: e })
        }
        _ => Ok(()),
    }
}

fn overlay(source: &str, lower: &[PathBuf], userxattr: bool, target: &Path) -> onggi_sys::Result<()> {
    let place = fs::open_dir(target)?;
    let made = (|| {
        let context = FsContext::open("overlay")?;
        context.set("source", source.as_bytes())?;
        lower.iter().try_for_each(|dir| context.set("lowerdir+", dir.as_os_str().as_encoded_bytes()))?;
        if userxattr {
            context.set_flag("userxattr")?;
        }
        context.set_flag("ro")?;
        context.mount(ATTRIBUTES)
    })();
    match made {
        Ok(made) => mount::attach(made.as_fd(), place.as_fd()),
        // Before Linux 6.6 layers cannot be given one by one, and the old way has room for a page of them.
        Err(e) if e.errno == Errno::INVAL => {
            let data = Directories { lower, upper: None }.data(userxattr.then_some("userxattr"));
            let options = String::from_utf8_lossy(&data).into_owned();
            if options.len() > MAX_OPTIONS || options.as_bytes() != data {
                return Err(e);
            }
            let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
            mount::mount_with(Path::new(source), target, "overlay", flags, &options)
        }
        Err(e) => Err(e),
    }
}

fn bind(source: &Path, target: &Path) -> onggi_sys::Result<()> {
    let place = fs::open_dir(target)?;
    let tree = mount::clone_tree_no_follow(source, Depth::One)?;
    let change = AttributeChange { set: ATTRIBUTES, ..AttributeChange::default() };
    mount::set_attributes(tree.as_fd(), Depth::One, change)?;
    mount::attach(tree.as_fd(), place.as_fd())
}

fn unmount(target: &Path, lazy: bool) -> Result<(), EngineError> {
    let done = if lazy { mount::detach(target) } else { mount::unmount(target) };
    match done {
        // Somebody was faster.
        Err(e) if matches!(e.errno, Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(e) if e.errno == Errno::BUSY => Err(EngineError::Unsupported {
            what: format!("unmounting {}", target.display()),
            reason: "a process has a file open or its working directory there".to_owned(),
            hint: format!("`fuser -vm {}` shows who; --force detaches it all the same", target.display()),
        }),
        other => other.map_err(at("unmount", target)),
    }
}
