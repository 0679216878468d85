//! What is known of the directories before anything is mounted.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use super::{Overlay, OverlayRequest, overlays};
use crate::PrimitiveError;

/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAY: u64 = 0x794c_7630;

/// One directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirFacts {
    /// It is one.
    pub directory: bool,
    /// The mount that it is on.
    pub mount: u64,
    /// Its filesystem is an overlay.
    pub overlay: bool,
    /// Its filesystem or mount cannot be written.
    pub read_only: bool,
}

/// The machine's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayFacts {
    /// What exists of the directories and of those that they are in.
    pub dirs: BTreeMap<PathBuf, DirFacts>,
    /// The overlay that is on the target now.
    pub mounted: Option<Overlay>,
    /// The filesystem that is mounted on the target, when it is no overlay.
    pub other: Option<String>,
    /// Every other overlay that this mount namespace shows.
    pub used: Vec<Overlay>,
    /// This process is in a user namespace: marks go to `user.` attributes.
    pub user_namespace: bool,
}

impl OverlayFacts {
    /// Reads them.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub fn gather(request: &OverlayRequest) -> Result<Self, PrimitiveError> {
        let named = request.lower.iter().chain(&request.upper).chain(&request.work).chain([&request.target]);
        let mut dirs = BTreeMap::new();
        for path in named {
            for path in [Some(path.as_path()), path.parent()].into_iter().flatten() {
                if let Some(found) = look(path) {
                    dirs.insert(path.to_owned(), found);
                }
            }
        }
        let (here, used): (Vec<_>, Vec<_>) = overlays()?.into_iter().partition(|o| o.target == request.target);
        let mounted = here.into_iter().last();
        let other = if mounted.is_none() { super::mounted::filesystem_on(&request.target)? } else { None };
        Ok(Self { dirs, mounted, other, used, user_namespace: in_user_namespace() })
    }

    /// What is known of a directory; none when it does not exist.
    pub fn of(&self, path: &Path) -> Option<DirFacts> {
        self.dirs.get(path).copied()
    }
}

fn look(path: &Path) -> Option<DirFacts> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let directory = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd).ok()?.st_mode).is_dir();
    let flags = rustix::fs::fstatvfs(&fd).ok()?.f_flag;
    let magic = rustix::fs::fstatfs(&fd).ok()?.f_type;
    Some(DirFacts {
        directory,
        mount: onggi_sys::mount::id(fd.as_fd()).unwrap_or_default(),
        overlay: u64::try_from(magic) == Ok(OVERLAY),
        read_only: flags.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

/// The first user namespace maps every id to itself.
fn in_user_namespace() -> bool {
    let text = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}
