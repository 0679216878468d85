//! What happens when the workload has ended: its status, its cgroup, its record on disk, the command that
//! cleans up after it.
//!
//! ```text
//! <exit_file>.tmp   written and (unless the container is disposable) synced, then renamed; a crash may leave one
//! <exit_file>       the ExitRecord: there or not there, never half
//! started.json      the engine's, beside it; on a full disk its space becomes the record's
//! ```

use std::{
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use onggi_spec::monitor::{ExitDetail, ExitRecord, LimitEvents};
use onggi_sys::{Errno, SysContext, SysError};
use rustix::{
    fs::{Mode, OFlags},
    process::{WaitId, WaitIdOptions},
};

use super::handover::{Handover, List};

/// The exit command's whole environment: trusted directories, nothing of the caller's or an image's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How the workload's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// Its code, or 128 + the signal that ended it.
    pub(super) code: i32,
    signal: Option<i32>,
    core_dumped: bool,
}

/// Takes the exit status of the ended workload.
pub(super) fn reap(workload: &OwnedFd) -> Ended {
    use std::os::fd::AsFd;
    loop {
        let status = rustix::process::waitid(WaitId::PidFd(workload.as_fd()), WaitIdOptions::EXITED);
        return match status {
            Ok(Some(status)) => {
                let signal = status.terminating_signal();
                let code = status.exit_status().or(signal.map(|s| 128 + s)).unwrap_or(UNKNOWN);
                Ended { code, signal, core_dumped: status.dumped() }
            }
            Err(Errno::INTR) => continue,
            _ => Ended { code: UNKNOWN, signal: None, core_dumped: false },
        };
    }
}

/// The exit code when the kernel does not tell; as Docker.
const UNKNOWN: i32 = 255;

/// Ends what is left in the cgroup and removes it. Returns what it had counted: after a success only the work of the
/// OOM killer, which costs one read.
pub(super) fn dissolve_cgroup(handover: &Handover<'_>, ended: Ended) -> LimitEvents {
    let paths = cgroup_paths(handover.cgroups);
    if paths.is_empty() {
        return LimitEvents::default();
    }
    let count = onggi_cgroup::oom_count(&paths).unwrap_or(0);
    let oom_kills = count.saturating_sub(handover.oom_before);
    let mut events = match ended.code == 0 && oom_kills == 0 {
        true => LimitEvents::default(),
        false => onggi_cgroup::limit_events(&paths),
    };
    events.oom_kills = oom_kills;
    // What cannot be removed now is found again by the engine's clean-up.
    let _ = onggi_cgroup::remove(&paths);
    events
}

fn cgroup_paths(list: List<'_>) -> onggi_cgroup::Paths {
    let mut paths = onggi_cgroup::Paths::new();
    let mut items = list.iter();
    while let (Some(controller), Some(dir)) = (items.next(), items.next()) {
        paths.insert(controller.to_string_lossy().into_owned(), PathBuf::from(dir));
    }
    paths
}

/// The text of an exit record.
pub(super) fn record(handover: &Handover<'_>, ended: Ended, events: LimitEvents, finished_at: i64) -> Vec<u8> {
    let oom_killed = events.oom_kills > 0;
    let Ended { code: exit_code, signal, core_dumped } = ended;
    let limits = (events != LimitEvents::default()).then_some(events);
    let detail = (signal.is_some() || limits.is_some())
        .then(|| Box::new(ExitDetail { signal, core_dumped, pid: handover.pid, limits, failure: None }));
    let started_at = handover.started_at;
    let record = ExitRecord { exit_code, oom_killed, started_at, finished_at, error: String::new(), detail };
    serde_json::to_vec(&record).unwrap_or_default()
}

/// Whether a file must outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// Yes.
    Yes,
    /// No: what it tells is gone then anyway.
    No,
}

/// Replaces a file: a temporary one beside it, renamed, before that synced if it has to be.
pub(super) fn write_atomically(path: &Path, bytes: &[u8], sync: Sync) -> onggi_sys::Result<()> {
    let tmp = temporary(path);
    let shown = || format!("{tmp:?}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&tmp, flags, Mode::from_raw_mode(0o600)).sys("open", shown)?;
    fill(&file, &tmp, bytes, sync)?;
    rustix::fs::rename(&tmp, path).sys("rename", || format!("{tmp:?}, {path:?}"))
}

/// Writes from the file's beginning and, where that is asked for, to the disk.
fn fill(file: &OwnedFd, at: &Path, bytes: &[u8], sync: Sync) -> onggi_sys::Result<()> {
    let shown = || format!("{at:?}");
    let mut rest = bytes;
    while !rest.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::write(file, rest)).sys("write", shown)?;
        rest = &rest[n..];
    }
    match sync {
        Sync::Yes => rustix::fs::fsync(file).sys("fsync", shown),
        Sync::No => Ok(()),
    }
}

/// What the engine writes beside the exit record when the workload runs. The record makes it superfluous.
const STARTED: &str = "started.json";
/// The engine may be about to name that file: so often it is looked for, so long apart.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Writes the exit record. A workload that has filled the disk that it is on must not hide how it ended: the record then
/// takes the place of a small file that is there already.
pub(super) fn write_record(path: &Path, bytes: &[u8], sync: Sync) -> onggi_sys::Result<()> {
    let full = |e: &SysError| matches!(e.errno, Errno::NOSPC | Errno::DQUOT);
    let mut written = write_atomically(path, bytes, sync);
    for _ in 0..LOOKS {
        if !written.as_ref().is_err_and(full) {
            break;
        }
        let _ = rustix::fs::unlink(temporary(path));
        match take_over(&path.with_file_name(STARTED), path, bytes, sync) {
            Err(e) if e.errno == Errno::NOENT => {}
            done => return done,
        }
        std::thread::sleep(BETWEEN_LOOKS);
        written = write_atomically(path, bytes, sync);
    }
    written
}

/// Fills an existing file with other text and gives it another name. What fits into its first block needs no new one.
fn take_over(old: &Path, new: &Path, bytes: &[u8], sync: Sync) -> onggi_sys::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let shown = || format!("{old:?}");
    let file = rustix::fs::open(old, flags, Mode::empty()).sys("open", shown)?;
    rustix::fs::ftruncate(&file, bytes.len() as u64).sys("ftruncate", shown)?;
    fill(&file, old, bytes, sync)?;
    rustix::fs::rename(old, new).sys("rename", || format!("{old:?}, {new:?}"))
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.extend_from_slice(b".tmp");
    std::ffi::OsString::from_vec(name).into()
}

/// Removes what existed only while the container ran. "Already gone" is success; the lock file stays,
/// because removing it would let two monitors hold it.
pub(super) fn remove_runtime_files(handover: &Handover<'_>) {
    for name in [super::ATTACH_SOCKET, super::PID_FILE] {
        let _ = std::fs::remove_file(handover.run_dir.join(name));
    }
    let _ = std::fs::remove_dir_all(handover.state_dir);
}

/// Becomes the exit command. Returns only when there is none or it cannot be run.
pub(super) fn become_exit_command(command: List<'_>) {
    let mut words = command.iter();
    let Some(program) = words.next().filter(|p| Path::new(p).is_absolute()) else { return };
    // Resets the signal mask too.
    let _failed = Command::new(program).args(words).env_clear().env("PATH", PATH).current_dir("/").exec();
}
