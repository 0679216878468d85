//! A file that readers see either as it was or as it shall be.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::FileError;

/// What a finished write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the program. For tmpfs, and for what a power cut may take back.
    Crash,
    /// A power cut: the file and its directory are synced.
    PowerCut,
}

/// Writes `bytes` to `path` by a temporary file beside it and rename(2). `mode` is exact, whatever the umask.
///
/// On failure the old file is untouched and no temporary one is left.
pub fn atomic_write(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<(), FileError> {
    let tmp = temporary(path);
    let written = write_new(&tmp, bytes, mode, durability)
        .map_err(|e| FileError::io("write", &tmp, e))
        .and_then(|()| fs::rename(&tmp, path).map_err(|e| FileError::io("rename to", path, e)));
    if written.is_err() {
        // Best effort: the first error is the one that matters.
        let _ = fs::remove_file(&tmp);
        return written;
    }
    match durability {
        Durability::Crash => Ok(()),
        Durability::PowerCut => sync_parent(path).map_err(|e| FileError::io("sync the directory of", path, e)),
    }
}

/// A file that is written already and does not have its name yet. Dropped without [`Pending::commit`], it is gone.
#[derive(Debug)]
pub struct Pending {
    /// None once it has its name.
    tmp: Option<PathBuf>,
    path: PathBuf,
}

impl Pending {
    /// Writes `bytes` beside `path`. `mode` is exact, whatever the umask. It outlives a crash of the process, not a power
    /// cut.
    ///
    /// # Errors
    /// It cannot be written; nothing is left then.
    pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<Self, FileError> {
        let tmp = temporary(path);
        let written = write_new(&tmp, bytes, mode, Durability::Crash).map_err(|e| FileError::io("write", &tmp, e));
        let pending = Self { tmp: Some(tmp), path: path.to_owned() };
        written.map(|()| pending)
    }

    /// Gives it its name, by rename(2).
    ///
    /// # Errors
    /// The directory cannot be changed.
    pub fn commit(mut self) -> Result<(), FileError> {
        let Some(tmp) = &self.tmp else { return Ok(()) };
        fs::rename(tmp, &self.path).map_err(|e| FileError::io("rename to", &self.path, e))?;
        self.tmp = None;
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(tmp) = &self.tmp {
            // Best effort: its name tells that it is a leaving.
            let _ = fs::remove_file(tmp);
        }
    }
}

/// `.<name>.tmp.<pid>.<n>`: unique among the living, recognisable when dead.
pub(super) fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.tmp.{}.{n}", std::process::id()))
}

pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    // A dead process with our pid may have left one.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))?;
    file.write_all(bytes)?;
    if durability == Durability::PowerCut {
        file.sync_all()?;
    }
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
