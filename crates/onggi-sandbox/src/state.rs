//! What the runtime remembers of a container, below its state root (a tmpfs):
//!
//! ```text
//! <state_root>/<id>/            0700, made exclusively: it is the reservation of the id
//!   state.json                  SandboxState, replaced by rename
//!   resources.json              linux.resources as `update` left them, only when it has run
//!   hooks.json                  poststart and poststop hooks, only when there are any
//!   config.json                 the configuration as `create` read it: later changes of the bundle have no effect
//!   notify/                     where the container's own notify.sock is, only below a NOTIFY_SOCKET
//!   device-N                    device nodes that a container in a user namespace has as binds
//!   exec.fifo, answer/exec.fifo `start` writes into one and reads the other, until the program runs
//! ```
//!
//! Whether the container runs is asked of the kernel: pid, start time and boot id together name a process.
//! A crash leaves at most a directory that nobody holds a lock of, and the cgroups that its state names;
//! `delete` removes them.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use onggi_spec::{
    monitor::SandboxState,
    oci::runtime::{ContainerState, Hooks, LinuxNamespaceType, LinuxResources, Spec, State},
};
use onggi_sys::{Errno, SysError, procfs, small_file};
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::{Result, StartFailureError, Step};

/// Longest state file that is read back.
const MAX_STATE: usize = 1 << 20;
/// Longest id; one path component.
const MAX_ID: usize = 255;
/// How often a removal is tried: each failure is a file that another verb has put there meanwhile.
const REMOVALS: usize = 16;

/// What runc calls the FIFO of a process that waits for `start`.
const FIFO: &str = "exec.fifo";

const OTHER_ROOT: &str = "choose a directory that can be written with --root";

/// An id is one path component of letters, digits, `_ + - .` (runc's grammar).
///
/// # Errors
/// Names the id.
pub fn check_id(id: &str) -> Result<()> {
    let right = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
    if id.is_empty() {
        return Err(StartFailureError::new("container id cannot be empty"));
    }
    if id.len() <= MAX_ID && id.bytes().all(right) && id != "." && id != ".." {
        return Ok(());
    }
    let shown: String = id.chars().take(64).collect();
    let culprit = id.chars().find(|c| !c.is_ascii() || !right(*c as u8));
    let culprit = culprit.map_or(String::new(), |c| format!(": invalid character {c:?}"));
    let hint = match id.len() {
        0..=MAX_ID => "letters, digits and _ + - . are allowed".to_owned(),
        long => format!("it has {long} bytes, at most {MAX_ID} are allowed"),
    };
    Err(StartFailureError::new(format!("invalid container ID format: {shown:?}{culprit}")).hint(hint))
}

fn sys(call: &'static str, at: &Path, e: &io::Error) -> SysError {
    let errno = e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    SysError::new(call, format!("{at:?}"), errno)
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    pub(crate) path: PathBuf,
    id: String,
}

impl StateDir {
    pub(crate) fn of(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        Ok(Self { path: root.join(id), id: id.to_owned() })
    }

    /// Reserves the id. The directory is locked for as long as the second value lives.
    pub(crate) fn create(root: &Path, id: &str) -> Result<(Self, Option<OwnedFd>)> {
        let this = Self::of(root, id)?;
        let make = |at: &Path, mode, recursive| fs::DirBuilder::new().mode(mode).recursive(recursive).create(at);
        let mut made = make(&this.path, 0o700, false);
        if made.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            // A user's runtime directory is cleaned of what nobody touches for six hours and is not sticky (XDG Base
            // Directory Specification).
            let mode = if rustix::process::geteuid().is_root() { 0o700 } else { 0o1700 };
            make(root, mode, true)
                .map_err(|e| sys("mkdir", root, &e))
                .step(|| "make the state directory".into())
                .map_err(|e| e.hint(OTHER_ROOT))?;
            made = make(&this.path, 0o700, false);
        }
        match made {
            Ok(()) => {
                let lock = this.open().and_then(|fd| {
                    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
                    Ok(fd)
                });
                Ok((this, lock.ok()))
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                // Engines look for runc's words.
                Err(StartFailureError::new(format!("container with given ID already exists: {id}"))
                    .hint("delete it first, or choose another id"))
            }
            Err(e) => Err(sys("mkdir", &this.path, &e))
                .step(|| format!("reserve container id {id}"))
                .map_err(|e| e.hint(OTHER_ROOT)),
        }
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        rustix::fs::open(&self.path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// A living `create` has it; one that was killed has lost it.
    fn is_being_made(&self) -> bool {
        let locked = |fd: OwnedFd| rustix::fs::flock(&fd, FlockOperation::NonBlockingLockShared).is_err();
        self.open().is_ok_and(locked)
    }

    /// The first process of the container is alive (a zombie is not).
    pub(crate) fn alive(&self, state: &SandboxState) -> bool {
        if state.pid <= 0 || state.boot_id != boot_id() {
            return false;
        }
        match procfs::stat(state.pid).ok().flatten() {
            Some(stat) => !stat.has_ended() && stat.start_time == state.pid_start_time,
            // Nobody may trace it before its program runs, so a /proc with hidepid= shows it to the host's root alone.
            None => !state.started && self.waits_for_start(),
        }
    }

    /// Somebody has the answers' FIFO open for reading: the container's first process does until its program runs. The
    /// kernel lets go of it when that process dies, however that happens (fifo(7): ENXIO).
    fn waits_for_start(&self) -> bool {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(self.answer_fifo(), flags, Mode::empty()).is_ok()
    }

    /// The status as the specification has it.
    pub(crate) fn status(&self, state: &SandboxState) -> ContainerState {
        match state.pid {
            0 if self.is_being_made() => ContainerState::Creating,
            0 => ContainerState::Stopped,
            _ if !self.alive(state) => ContainerState::Stopped,
            _ if onggi_cgroup::is_frozen(&state.cgroup_paths).unwrap_or(false) => ContainerState::Paused,
            _ if state.started => ContainerState::Running,
            _ => ContainerState::Created,
        }
    }

    fn state_file(&self) -> PathBuf {
        self.path.join("state.json")
    }

    fn hooks_file(&self) -> PathBuf {
        self.path.join("hooks.json")
    }

    /// Makes the [`notify_directory`]; the container's user must be able to enter it through its bind mount.
    pub(crate) fn make_notify_dir(&self) -> Result<()> {
        let at = self.path.join("notify");
        let made = fs::create_dir(&at).and_then(|()| fs::set_permissions(&at, fs::Permissions::from_mode(0o755)));
        made.map_err(|e| sys("mkdir", &at, &e)).step(|| "make the directory of the notify socket".into())
    }

    /// Keeps the configuration as it was read.
    pub(crate) fn save_config(&self, bytes: &[u8]) -> Result<()> {
        // Nobody looks for it before there is a state.
        let at = self.path.join("config.json");
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at)?;
            io::Write::write_all(&mut file, bytes)
        };
        write().map_err(|e| self.write_failure(&at, &e))
    }

    /// The configuration that was kept, if it was and is one.
    pub(crate) fn kept_config(&self) -> Option<Spec> {
        Spec::from_slice(&small_file::read_record(&self.path.join("config.json"), usize::MAX).ok()?).ok()
    }

    /// The configuration that the container was made from; the bundle's where none was kept.
    pub(crate) fn config(&self, state: &SandboxState) -> Result<Spec> {
        let kept = self.path.join("config.json");
        let at = if kept.exists() { kept } else { state.bundle.join("config.json") };
        let step = || format!("read the container's configuration {}", at.display());
        let bytes = small_file::read(&at, usize::MAX).map_err(|e| sys("read", &at, &e)).step(step)?;
        Spec::from_slice(&bytes).map_err(|e| StartFailureError::new(format!("{}: {e}", step())))
    }

    /// Where `start` says go.
    pub(crate) fn start_fifo(&self) -> PathBuf {
        self.path.join(FIFO)
    }

    /// Where `start` hears what came of it.
    pub(crate) fn answer_fifo(&self) -> PathBuf {
        self.path.join("answer").join(FIFO)
    }

    fn resources_file(&self) -> PathBuf {
        self.path.join("resources.json")
    }

    /// The limits in force, when they are not the configuration's any more.
    pub(crate) fn resources(&self) -> Option<LinuxResources> {
        let bytes = fs::read(self.resources_file()).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps the limits that `update` has set.
    pub(crate) fn save_resources(&self, resources: &LinuxResources) -> Result<()> {
        self.replace(&self.resources_file(), &to_json(resources)?)
    }

    /// Replaces the state.
    pub(crate) fn save(&self, state: &SandboxState) -> Result<()> {
        self.replace(&self.state_file(), &to_json(state)?)
    }

    /// Keeps the hooks that later verbs run.
    pub(crate) fn save_hooks(&self, hooks: &Hooks) -> Result<()> {
        let later = Hooks { poststart: hooks.poststart.clone(), poststop: hooks.poststop.clone(), ..Hooks::default() };
        if later == Hooks::default() {
            return Ok(());
        }
        self.replace(&self.hooks_file(), &to_json(&later)?)
    }

    pub(crate) fn hooks(&self) -> Hooks {
        let read = fs::read(self.hooks_file()).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn replace(&self, at: &Path, bytes: &[u8]) -> Result<()> {
        let temporary = at.with_extension("tmp");
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            io::Write::write_all(&mut file, bytes)?;
            fs::rename(&temporary, at)
        };
        // The workload that has just begun may fill the disk: what is there already has room for what changes then, a word.
        let full = |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let written = write().or_else(|e| match full(&e) && at.exists() {
            true => fs::remove_file(&temporary).and_then(|()| overwrite(at, bytes)),
            false => Err(e),
        });
        written.map_err(|e| self.write_failure(at, &e))
    }

    fn write_failure(&self, at: &Path, e: &io::Error) -> StartFailureError {
        match e.kind() {
            io::ErrorKind::NotFound if !self.exists() => {
                StartFailureError::new(format!("container {} was deleted meanwhile", self.id))
            }
            _ => StartFailureError::from_sys(format!("write {}", at.display()), &sys("write", at, e)),
        }
    }

    pub(crate) fn load(&self) -> Result<SandboxState> {
        let at = self.state_file();
        let step = || format!("read the state of container {}", self.id);
        let bytes = match small_file::read_record(&at, MAX_STATE) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // runc's words; engines look for "does not exist".
                return Err(StartFailureError::new(format!("container does not exist: {}", self.id))
                    .hint("`list` shows the containers of this --root"));
            }
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                return Err(StartFailureError::new(format!("{}: it is larger than {MAX_STATE} bytes", step())));
            }
            Err(e) => return Err(sys("read", &at, &e)).step(step),
        };
        serde_json::from_slice(&bytes).map_err(|e| StartFailureError::new(format!("{}: {e}", step())))
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Removes the directory; gone already is fine.
    pub(crate) fn remove(&self) -> Result<()> {
        // Normally there is nothing else, and nothing has to be looked for.
        for name in ["state.json", "config.json"] {
            let _ = fs::remove_file(self.path.join(name));
        }
        let mut removed = match fs::remove_dir(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => fs::remove_dir_all(&self.path),
            other => other,
        };
        for _ in 1..REMOVALS {
            removed = match removed {
                // Another verb has just put a file there.
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&self.path),
                // No descriptor is left to list the directory with.
                Err(e) if is_out_of_files(&e) => self.remove_known(),
                other => other,
            };
        }
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(sys("rmdir", &self.path, &e)).step(|| format!("remove the state of container {}", self.id))
            }
            _ => Ok(()),
        }
    }

    /// Removes what has a name that is known beforehand.
    fn remove_known(&self) -> io::Result<()> {
        for stem in ["state", "resources", "hooks", "config"] {
            for end in ["json", "tmp"] {
                let _ = fs::remove_file(self.path.join(stem).with_extension(end));
            }
        }
        let _ = fs::remove_file(self.start_fifo());
        let answer = self.answer_fifo();
        let _ = fs::remove_file(&answer);
        let _ = answer.parent().map(fs::remove_dir);
        fs::remove_dir(&self.path)
    }
}

fn is_out_of_files(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| StartFailureError::new(format!("encode the container's state: {e}")))
}

/// Where a container's own notify socket is, below the directory of its state.
pub fn notify_directory(state_root: &Path, id: &str) -> PathBuf {
    state_root.join(id).join("notify")
}

/// Ids of all containers of a state root.
pub(crate) fn ids(root: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        r => r.map_err(|e| sys("opendir", root, &e)).step(|| "list the containers".into())?,
    };
    let mut ids: Vec<String> = entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|id| check_id(id).is_ok() && root.join(id).join("state.json").exists())
        .collect();
    ids.sort();
    Ok(ids)
}

/// The kernel's name of this boot; empty where /proc is not mounted.
pub(crate) fn boot_id() -> String {
    procfs::boot_id().unwrap_or_default()
}

/// The state as hooks and `state` show it.
pub(crate) fn oci_state(state: &SandboxState, status: ContainerState) -> State {
    State {
        oci_version: state.oci_version.clone(),
        id: state.id.clone(),
        status,
        pid: (status != ContainerState::Stopped).then_some(state.pid),
        bundle: state.bundle.display().to_string(),
        annotations: state.annotations.clone(),
    }
}

/// The same as the bytes that hooks read.
pub(crate) fn for_hooks(state: &SandboxState, status: ContainerState) -> Result<Vec<u8>> {
    to_json(&oci_state(state, status))
}

/// A state for a container that is about to be made.
pub(crate) fn new_state(
    id: &str,
    bundle: &Path,
    config: &Spec,
    cgroup_paths: BTreeMap<String, PathBuf>,
) -> SandboxState {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    SandboxState {
        oci_version: onggi_spec::oci::runtime::OCI_VERSION.to_owned(),
        id: id.to_owned(),
        pid: 0,
        pid_start_time: 0,
        // Known when it is written.
        boot_id: String::new(),
        bundle: bundle.to_path_buf(),
        started: false,
        created_at: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
        cgroup_paths,
        systemd_unit: None,
        resctrl: Vec::new(),
        no_new_keyring: false,
        owner_uid: rustix::process::getuid().as_raw(),
        annotations: config.annotations.clone(),
        rootfs: config.root.as_ref().map(|r| bundle.join(&r.path)).unwrap_or_default(),
        shares_pids: !makes_pid_namespace(config),
        host_root: None,
    }
}

fn makes_pid_namespace(config: &Spec) -> bool {
    let namespaces = config.linux.iter().flat_map(|l| &l.namespaces);
    namespaces.into_iter().any(|n| n.typ == LinuxNamespaceType::Pid && n.path.is_none())
}

/// In place: blocks that it has are not asked for again.
fn overwrite(at: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(at)?;
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_be_paths() {
        for bad in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(256)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        assert!(check_id("web_1.2+x-y").is_ok());
    }
}
