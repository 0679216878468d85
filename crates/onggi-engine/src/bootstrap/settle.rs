//! Makes a bootstrapped directory the same from run to run.

use std::{fs, io, path::Path};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// What holds the time of the run, or what this machine is called.
pub(super) const VOLATILE: [&str; 9] = [
    "etc/hostname",
    "etc/resolv.conf",
    "etc/machine-id",
    "var/cache/ldconfig/aux-cache",
    "var/log/alternatives.log",
    "var/log/apt",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
    "var/lib/apt/lists",
];

/// Removes what is volatile, and dates what is younger than `timestamp` (seconds since 1970) back to it. Links are not
/// followed; directories come after what is in them.
pub(super) fn settle(dir: &Path, timestamp: u64) -> io::Result<()> {
    for path in VOLATILE.map(|path| dir.join(path)) {
        let removed = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(e) => Err(e),
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    date(dir, i64::try_from(timestamp).unwrap_or(i64::MAX))
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
        fs::create_dir_all(dir.join("var/log/apt")).unwrap();
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::write(dir.join("etc/machine-id"), "x").unwrap();
        fs::write(dir.join("etc/passwd"), "x").unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.join("link")).unwrap();
        settle(&dir, 1000).unwrap();
        assert!(!dir.join("var/log/apt").exists() && !dir.join("etc/machine-id").exists());
        for path in ["", "etc", "etc/passwd", "link", "var/log"] {
            assert_eq!(fs::symlink_metadata(dir.join(path)).unwrap().mtime(), 1000, "{path}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
