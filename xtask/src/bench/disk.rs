//! A filesystem made anew for one sample.
//!
//! On the machine's own, ext4 does not use the numbers of files again that were removed within the last minute, and walks
//! over all of them for each new file (`recently_deleted` in fs/ext4/ialloc.c). A pull right after the removal of 32 000 files
//! then takes six times the processor time, whoever pulls. So every contender gets an empty disk.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use super::peers::silently;
use crate::{Outcome, process::read};

/// Bytes of a disk; the file is sparse.
const SIZE: u64 = 8 << 30;

/// An ext4 in a file, mounted. Gone when dropped.
pub(crate) struct Disk {
    image: PathBuf,
    device: String,
    path: PathBuf,
}

impl Disk {
    /// Makes one in `dir`.
    pub(crate) fn new(dir: &Path) -> Outcome<Disk> {
        let image = dir.join("disk.img");
        let path = dir.join("disk");
        let failed = |e| format!("make {}: {e}", image.display());
        File::create(&image).and_then(|file| file.set_len(SIZE)).map_err(failed)?;
        fs::create_dir_all(&path).map_err(failed)?;
        // What mkfs leaves for later the kernel would write while we measure.
        let options = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        silently(Command::new("mkfs.ext4").args(options).arg(&image))?;
        // Without the page cache of the file below: what is flushed is on the disk once.
        let device = read(Command::new("losetup").args(["--direct-io=on", "-f", "--show"]).arg(&image))?;
        let disk = Disk { image, device: device.trim().to_owned(), path };
        silently(Command::new("mount").arg(&disk.device).arg(&disk.path))?;
        silently(Command::new("sync").arg("-f").arg(&disk.path))?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A daemon that has just ended may leave mounts below it.
        if silently(Command::new("umount").arg(&self.path)).is_err() {
            let _ = silently(Command::new("umount").arg("-l").arg(&self.path));
        }
        let _ = silently(Command::new("losetup").arg("-d").arg(&self.device));
        let _ = fs::remove_file(&self.image);
    }
}
