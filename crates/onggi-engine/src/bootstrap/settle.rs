//! Makes a bootstrapped directory the same from run to run.

use std::{fs, io, path::Path};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// Files that hold the time of the run, or what this machine is called.
pub(super) const VOLATILE: [&str; 7] = [
    "etc/hostname",
    "etc/resolv.conf",
    "etc/machine-id",
    "var/cache/ldconfig/aux-cache",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
];
/// Directories that programs expect, of whose content nothing is needed: logs, lists and packages that were fetched.
pub(super) const EMPTIED: [&str; 3] = ["var/log/apt", "var/lib/apt/lists", "var/cache/apt/archives"];

/// Removes what is volatile, and dates what is younger than `timestamp` (seconds since 1970) back to it. Links are not
/// followed; directories come after what is in them.
pub(super) fn settle(dir: &Path, timestamp: u64) -> io::Result<()> {
    for path in VOLATILE.map(|path| dir.join(path)) {
        super::gone(fs::remove_file(&path))?;
    }
    for path in EMPTIED.map(|path| dir.join(path)) {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => empty(&path)?,
            // A link could lead anywhere.
            Ok(_) => {}
            Err(e) => super::gone(Err(e))?,
        }
    }
    date(dir, i64::try_from(timestamp).unwrap_or(i64::MAX))
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

fn date(path: &Path, latest: i64) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            date(&entry?.path(), latest)?;
        }
    }
    if meta.mtime() < latest {
        return Ok(());
    }
    let time = Timespec { tv_sec: latest, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn logs_go_and_nothing_is_younger_than_the_timestamp() {
        let dir = std::env::temp_dir().join(format!("onggi-settle-{}", std::process::id()));
        fs::create_dir_all(dir.join("var/log/apt/old")).unwrap();
        fs::write(dir.join("var/log/apt/term.log"), "x").unwrap();
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::write(dir.join("etc/machine-id"), "x").unwrap();
        fs::write(dir.join("etc/passwd"), "x").unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.join("link")).unwrap();
        settle(&dir, 1000).unwrap();
        assert!(
            fs::read_dir(dir.join("var/log/apt")).unwrap().next().is_none() && !dir.join("etc/machine-id").exists()
        );
        for path in ["", "etc", "etc/passwd", "link", "var/log"] {
            assert_eq!(fs::symlink_metadata(dir.join(path)).unwrap().mtime(), 1000, "{path}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
