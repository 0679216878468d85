//! Mount operations of the child: everything detached first, then attached to a target opened in the root.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use onggi_spec::{monitor::OverlayMount, oci::runtime::LinuxIdMapping};
use onggi_sys::{
    Errno, SysContext, SysError,
    mount::{self, AttributeChange, Depth, FsContext, MountFlags, MountPropagationFlags, attr},
    path::{self, Node, OFlags},
};

use super::{Child, copy_up};
use crate::{
    error::{Result, StartFailureError, Step},
    plan::{self, BindMount, FsMount, Propagation, SetupOp, TargetKind},
    sources,
};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// mount(2) flags of a recursive change.
pub(super) fn propagation_flags(p: Propagation) -> MountPropagationFlags {
    let flag = match p {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
    };
    flag | MountPropagationFlags::REC
}

fn propagation_bits(p: Propagation) -> u64 {
    u64::from((propagation_flags(p) - MountPropagationFlags::REC).bits())
}

/// Access-time modes exclude each other: the kernel wants the whole mask cleared with any of them.
fn change(set: u64, clear: u64) -> AttributeChange<'static> {
    let clear = if (set | clear) & attr::ATIME != 0 { clear | attr::ATIME } else { clear };
    AttributeChange { set, clear, ..AttributeChange::default() }
}

fn set_propagation(mount: &OwnedFd, p: Propagation, recursive: bool) -> onggi_sys::Result<()> {
    let change = AttributeChange { propagation: propagation_bits(p), ..AttributeChange::default() };
    mount::set_attributes(mount.as_fd(), if recursive { Depth::Recursive } else { Depth::One }, change)
}

/// The detached mount of a bind, with its attributes.
pub(crate) fn prepare_bind(bind: &BindMount) -> Result<OwnedFd> {
    let step = || SetupOp::Bind(bind.clone()).words();
    let depth = if bind.recursive { Depth::Recursive } else { Depth::One };
    let fd = mount::clone_tree(&bind.source, depth).map_err(|e| {
        let failure = StartFailureError::from_sys(step(), &e);
        match e.errno {
            Errno::NOENT => failure.hint(format!("{} does not exist on the host", bind.source.display())),
            _ => failure,
        }
    })?;
    if bind.must_be_proc {
        let fs = rustix::fs::fstatfs(&fd).sys("fstatfs", || "bind source").step(step)?;
        if fs.f_type as i64 != PROC_SUPER_MAGIC {
            return Err(StartFailureError::new(format!("{}: only a procfs may be mounted there", step())));
        }
    }
    // A volume neither sends nor receives mount events unless asked.
    let (p, recursive) = bind.propagation.unwrap_or((Propagation::Private, bind.recursive));
    let (mut one, mut all) = (
        change(bind.attributes.0, bind.attributes.1),
        change(bind.recursive_attributes.0, bind.recursive_attributes.1),
    );
    if recursive {
        all.propagation = propagation_bits(p)
    } else {
        one.propagation = propagation_bits(p)
    }
    for (depth, change) in [(Depth::One, one), (Depth::Recursive, all)] {
        if change.set | change.clear | change.propagation != 0 {
            mount::set_attributes(fd.as_fd(), depth, change).step(step)?;
        }
    }
    if let Some((uid, gid)) = &bind.id_map {
        id_map(&fd, depth, uid, gid).map_err(|mut e| {
            e.0.step = format!("{}: {}", step(), e.0.step);
            e
        })?;
    }
    Ok(fd)
}

fn id_map(fd: &OwnedFd, depth: Depth, uid: &[LinuxIdMapping], gid: &[LinuxIdMapping]) -> Result<()> {
    let ns = sources::user_namespace(uid, gid)?;
    let change = AttributeChange { set: attr::IDMAP, user_namespace: Some(ns.as_fd()), ..AttributeChange::default() };
    mount::set_attributes(fd.as_fd(), depth, change).step(|| "map the ids of the mount".into())
}

/// A detached overlay. Layers are given one by one where the kernel can (6.5); the older single option is
/// limited to 255 bytes in this interface.
fn overlay(lower: &[&Path], upper: &Path, work: &Path, userxattr: bool) -> onggi_sys::Result<OwnedFd> {
    let fs = FsContext::open("overlay")?;
    fs.set("source", b"overlay")?;
    for layer in lower {
        fs.set("lowerdir+", path::bytes(layer))?;
    }
    fs.set("upperdir", path::bytes(upper))?;
    fs.set("workdir", path::bytes(work))?;
    if userxattr {
        fs.set_flag("userxattr")?;
    }
    fs.mount(0)
}

/// The same by mount(2), onto the current directory.
fn overlay_on_cwd(o: &OverlayMount) -> onggi_sys::Result<()> {
    let mut data = b"lowerdir=".to_vec();
    for (i, layer) in o.lower.iter().enumerate() {
        if i > 0 {
            data.push(b':');
        }
        escape(&mut data, path::bytes(layer));
    }
    for (key, dir) in [(&b",upperdir="[..], &o.upper), (b",workdir=", &o.work)] {
        data.extend_from_slice(key);
        escape(&mut data, path::bytes(dir));
    }
    if o.userxattr {
        data.extend_from_slice(b",userxattr");
    }
    let data = CString::new(data).map_err(|_| SysError::new("mount", "overlay, NUL in a path", Errno::INVAL))?;
    mount::mount_on_cwd(Path::new("overlay"), "overlay", MountFlags::empty(), &data)
}

/// overlayfs takes `\`, `:` and `,` literally after a backslash.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for b in text {
        if matches!(b, b'\\' | b':' | b',') {
            out.push(b'\\');
        }
        out.push(*b);
    }
}

impl Child {
    pub(super) fn make_root(&mut self, index: usize, op: &SetupOp) -> Result<()> {
        let step = || op.words();
        if let Some(fd) = self.prepared.mounts.remove(&index) {
            self.root = Some(fd);
            return Ok(());
        }
        match op {
            SetupOp::BindRoot { source } => {
                self.root = Some(bind_root(source)?);
            }
            SetupOp::OverlayRoot { overlay: o } => {
                let lower: Vec<&Path> = o.lower.iter().map(AsRef::as_ref).collect();
                match overlay(&lower, &o.upper, &o.work, o.userxattr) {
                    Ok(fd) => self.root = Some(fd),
                    Err(e) if e.errno == Errno::INVAL => self.legacy_root(o, &e).step(step)?,
                    Err(e) => return Err(overlay_failure(step(), &e)),
                }
            }
            _ => return Err(StartFailureError::new("not an operation that makes a root")),
        }
        Ok(())
    }

    /// Before Linux 6.5 (no `lowerdir+`) or with paths over 255 bytes. Mounted on the work directory, which
    /// nobody reaches by path any more.
    fn legacy_root(&mut self, o: &OverlayMount, first: &SysError) -> onggi_sys::Result<()> {
        rustix::process::chdir(&o.work).sys("chdir", || format!("{:?}", o.work))?;
        overlay_on_cwd(o).map_err(|e| if e.errno == Errno::INVAL { first.clone() } else { e })?;
        let cwd = rustix::process::getcwd(Vec::new()).sys("getcwd", || "")?;
        let root = rustix::fs::open(cwd.as_c_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, 0.into())
            .sys("open", || format!("{cwd:?}"))?;
        self.root = Some(root);
        self.root_attached = true;
        Ok(())
    }

    pub(super) fn attach_root(&mut self, at: &Path) -> Result<()> {
        if self.root_attached {
            return Ok(());
        }
        let step = || format!("attach the root at {}", at.display());
        let target = rustix::fs::open(at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, 0.into())
            .sys("open", || format!("{at:?}"))
            .step(step)?;
        mount::attach(self.root()?, target.as_fd()).step(step)
    }

    pub(super) fn sub_overlay(&mut self, at: &Path, upper: &Path, work: &Path, userxattr: bool) -> Result<()> {
        let step = || format!("mount overlay over {}", at.display());
        let fd = match overlay(&[at], upper, work, userxattr) {
            // The host's directory went away since it was looked at: the view does not have it either.
            Err(e) if e.errno == Errno::NOENT && !at.exists() => return Ok(()),
            made => made.map_err(|e| overlay_failure(step(), &e))?,
        };
        let target = path::open_in_root_no_links(self.root()?, at, OFlags::PATH | OFlags::DIRECTORY).step(step)?;
        mount::attach(fd.as_fd(), target.as_fd()).step(step)
    }

    pub(super) fn mount(&mut self, m: &FsMount) -> Result<()> {
        let step = || SetupOp::Mount(m.clone()).words();
        let fs = FsContext::open(&m.fstype).map_err(|e| {
            let failure = StartFailureError::from_sys(step(), &e);
            match e.errno {
                Errno::NODEV => failure.hint(format!("this kernel has no {} filesystem", m.fstype)),
                _ => failure,
            }
        })?;
        if !m.source.is_empty() {
            fs.set("source", m.source.as_bytes()).step(step)?;
        }
        for (key, value) in &m.data {
            match value {
                Some(v) => fs.set(key, v.as_bytes()).step(step)?,
                None => fs.set_flag(key).step(step)?,
            }
        }
        let fd = fs.mount(m.attributes).step(step)?;
        let target = self.target(&m.target, m.target_kind)?;
        if m.fstype != "proc" {
            self.check_target(&target, &m.target)?;
        }
        if m.copy_up {
            copy_up::tree(target.as_fd(), fd.as_fd()).step(step)?;
        }
        mount::attach(fd.as_fd(), target.as_fd()).step(step)?;
        if let Some((p, recursive)) = m.propagation {
            set_propagation(&fd, p, recursive).step(step)?;
        }
        if m.fstype == "proc" {
            self.proc = Some(fd);
        }
        Ok(())
    }

    /// The planner has judged the destination by its spelling; a link in the root filesystem may lead elsewhere.
    /// Asked of the very descriptor that is mounted on (I1, CVE-2019-16884, CVE-2025-52881).
    pub(super) fn check_target(&self, target: &OwnedFd, destination: &Path) -> Result<()> {
        let step = || format!("find the mount point {}", destination.display());
        let refuse = |what: &str| {
            let hint = "a symbolic link in the root filesystem leads there: use another destination, or mend the image";
            Err(StartFailureError::new(format!("{}: it is {what}", step())).hint(hint))
        };
        let fs = rustix::fs::fstatfs(target).sys("fstatfs", || "mount point").step(step)?;
        if fs.f_type == PROC_SUPER_MAGIC && !plan::may_cover_in_proc(destination) {
            return refuse("inside /proc");
        }
        let identity = |fd: BorrowedFd<'_>| {
            let stat = rustix::fs::fstat(fd).sys("fstat", || "mount point").step(step)?;
            Ok::<_, StartFailureError>((stat.st_dev, stat.st_ino))
        };
        if identity(target.as_fd())? == identity(self.root()?)? {
            return refuse("the root itself");
        }
        Ok(())
    }

    fn target(&self, target: &Path, kind: TargetKind) -> Result<OwnedFd> {
        let step = || format!("find the mount point {}", target.display());
        let root = self.root()?;
        if kind != TargetKind::RealDirectory {
            return path::ensure(root, target, Node::Directory(0o755)).step(step);
        }
        match path::open_in_root_no_links(root, target, OFlags::PATH | OFlags::DIRECTORY) {
            Err(e) if e.errno == Errno::NOENT => path::ensure(root, target, Node::Directory(0o755)).step(step),
            Err(e) if e.errno == Errno::LOOP => Err(StartFailureError::from_sys(step(), &e)
                .hint(format!("{} is a symbolic link in the root filesystem", target.display()))),
            r => r.step(step),
        }
    }

    pub(super) fn bind(&mut self, index: usize, bind: &BindMount) -> Result<()> {
        let step = || SetupOp::Bind(bind.clone()).words();
        let fd = match self.prepared.mounts.remove(&index) {
            Some(fd) => fd,
            None => prepare_bind(bind)?,
        };
        let stat = rustix::fs::fstat(&fd).sys("fstat", || "bind source").step(step)?;
        let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
        let node = if is_dir { Node::Directory(0o755) } else { Node::File(0o644) };
        let target = path::ensure(self.root()?, &bind.target, node).step(step)?;
        self.check_target(&target, &bind.target)?;
        mount::attach(fd.as_fd(), target.as_fd()).map_err(|e| {
            let failure = StartFailureError::from_sys(step(), &e);
            match e.errno {
                Errno::NOTDIR | Errno::INVAL => {
                    failure.hint("one of source and target is a directory and the other is not")
                }
                _ => failure,
            }
        })
    }

    pub(super) fn attributes(&self, target: &Path, set: u64) -> onggi_sys::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let fd = path::open_in_root(root.as_fd(), target, OFlags::PATH)?;
        mount::set_attributes(fd.as_fd(), Depth::One, change(set, 0))
    }

    /// One shared empty directory, one verified /dev/null (I5).
    pub(super) fn mask(&mut self, target: &Path) -> onggi_sys::Result<()> {
        let Some(target) = self.existing(target)? else { return Ok(()) };
        let stat = rustix::fs::fstat(&target).sys("fstat", || "target")?;
        match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::Directory => self.mask_directory(&target),
            _ => self.mask_file(&target),
        }
    }

    fn existing(&self, target: &Path) -> onggi_sys::Result<Option<OwnedFd>> {
        let Some(root) = &self.root else { return Ok(None) };
        match path::open_in_root(root.as_fd(), target, OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if matches!(e.errno, Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn mask_directory(&mut self, target: &OwnedFd) -> onggi_sys::Result<()> {
        if let Some(empty) = &self.empty {
            let copy = mount::clone_tree_at(empty.as_fd(), Depth::One)?;
            return mount::attach(copy.as_fd(), target.as_fd());
        }
        let fs = FsContext::open("tmpfs")?;
        fs.set("mode", b"0555")?;
        fs.set("nr_inodes", b"1")?;
        let fd = fs.mount(attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
        mount::attach(fd.as_fd(), target.as_fd())?;
        // Kept: a copy can only be made of an attached mount (before Linux 6.15).
        self.empty = Some(fd);
        Ok(())
    }

    fn mask_file(&mut self, target: &OwnedFd) -> onggi_sys::Result<()> {
        if self.null.is_none() {
            self.null = Some(super::nodes::host_device(Path::new("/dev/null"), 1, 3)?);
        }
        let Some(null) = &self.null else { return Ok(()) };
        let copy = mount::clone_tree_at(null.as_fd(), Depth::One)?;
        let mut change = change(attr::RDONLY | attr::NOSUID | attr::NOEXEC, 0);
        change.propagation = propagation_bits(Propagation::Private);
        mount::set_attributes(copy.as_fd(), Depth::One, change)?;
        mount::attach(copy.as_fd(), target.as_fd())
    }

    pub(super) fn read_only(&self, target: &Path) -> onggi_sys::Result<()> {
        let Some(target) = self.existing(target)? else { return Ok(()) };
        let copy = mount::clone_tree_at(target.as_fd(), Depth::Recursive)?;
        mount::set_attributes(copy.as_fd(), Depth::Recursive, change(attr::RDONLY, 0))?;
        mount::attach(copy.as_fd(), target.as_fd())
    }

    pub(super) fn read_only_root(&self) -> onggi_sys::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        mount::set_attributes(root.as_fd(), Depth::One, change(attr::RDONLY, 0))
    }

    pub(super) fn root_propagation(&self, p: Propagation) -> onggi_sys::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        set_propagation(root, p, false)
    }

    pub(super) fn pivot(&mut self, by_move: bool) -> onggi_sys::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        rustix::process::fchdir(root).sys("fchdir", || "root")?;
        match by_move {
            true => mount::move_cwd_to_root()?,
            false => mount::pivot_to_cwd()?,
        }
        self.view = super::View::Container;
        Ok(())
    }
}

/// The whole tree of `source`, private.
pub(crate) fn bind_root(source: &Path) -> Result<OwnedFd> {
    let step = || format!("take {} as root filesystem", source.display());
    let fd = mount::clone_tree(source, Depth::Recursive).map_err(|e| {
        let failure = StartFailureError::from_sys(step(), &e);
        match e.errno {
            Errno::NOENT => failure.hint("root.path of config.json does not exist"),
            _ => failure,
        }
    })?;
    let stat = rustix::fs::fstat(&fd).sys("fstat", || "root").step(step)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
        return Err(StartFailureError::new(format!("{}: it is not a directory", step())));
    }
    set_propagation(&fd, Propagation::Private, true).step(step)?;
    Ok(fd)
}

fn overlay_failure(step: String, e: &SysError) -> StartFailureError {
    let failure = StartFailureError::from_sys(step, e);
    match e.errno {
        Errno::NODEV => failure.hint("this kernel has no overlayfs (CONFIG_OVERLAY_FS)"),
        Errno::PERM => failure.hint("overlayfs in a user namespace needs Linux 5.11"),
        _ => failure,
    }
}
