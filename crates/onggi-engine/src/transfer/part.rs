//! A file that is written before it has its name: nothing is seen of it, and nothing stays when whoever writes it is stopped,
//! by ^C or by SIGKILL. On a filesystem that knows no nameless files (NFS, FAT) it is a hidden file beside its name, which is
//! removed unless the process is killed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    io::Errno,
};

/// A file on its way to its name.
pub(crate) struct Part {
    file: File,
    /// Its name for now, if it has one.
    hidden: Option<PathBuf>,
}

impl Part {
    /// A file in the directory where it will have its name, readable and writable by its owner alone so far.
    pub(super) fn beside(name: &Path) -> io::Result<Self> {
        let dir = match name.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(Self { file: fd.into(), hidden: None }),
            // Whatever the reason is: if it is not that nameless files are unknown, the next error says it.
            Err(_) => {
                let hidden = hidden_beside(name)?;
                let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&hidden)?;
                Ok(Self { file, hidden: Some(hidden) })
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the complete file its mode and its name, and replaces what has that name.
    pub(super) fn keep(&mut self, name: &Path) -> io::Result<()> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(0o666 & !umask()))?;
        if self.hidden.is_none() {
            // proc(5): a link to /proc/self/fd/N names an O_TMPFILE file; AT_EMPTY_PATH would need a capability.
            let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let link = |to: &Path| rustix::fs::linkat(CWD, &own, CWD, to, AtFlags::SYMLINK_FOLLOW);
            match link(name) {
                // link(2) replaces nothing: for the blink of an eye there is a hidden name, as rename(2) needs one.
                Err(Errno::EXIST) => {
                    let hidden = hidden_beside(name)?;
                    link(&hidden)?;
                    self.hidden = Some(hidden);
                }
                done => return Ok(done?),
            }
        }
        if let Some(hidden) = &self.hidden {
            fs::rename(hidden, name)?;
        }
        self.hidden = None;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // Not completed; a failure here leaves a file that is named after what it is.
            let _ = fs::remove_file(hidden);
        }
    }
}

fn hidden_beside(name: &Path) -> io::Result<PathBuf> {
    let base = name.file_name().unwrap_or_default().to_string_lossy();
    // A name may be as long as a filesystem allows; with what is added to it, it would be longer.
    let base: String = base.chars().take(40).collect();
    let id = crate::names::random_id().map_err(io::Error::other)?;
    Ok(name.with_file_name(format!(".{base}.{}.part", id.short())))
}

/// The mask of this process, which can only be read by setting it; /proc tells it without.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o022)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn nothing_is_seen_before_the_file_is_kept_and_nothing_stays_when_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("a");
        let part = Part::beside(&name).unwrap();
        part.file().write_all(b"half").unwrap();
        assert_eq!(names(dir.path()), Vec::<String>::new());
        // As if the process had been killed: nobody's destructor runs.
        std::mem::forget(part);
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn a_kept_file_replaces_what_had_its_name_however_long_that_is() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a".to_owned(), "é".repeat(127)] {
            let path = dir.path().join(&name);
            for text in ["new and longer", "newer"] {
                let mut part = Part::beside(&path).unwrap();
                part.file().write_all(text.as_bytes()).unwrap();
                part.keep(&path).unwrap();
                drop(part);
                assert_eq!(fs::read_to_string(&path).unwrap(), text);
            }
            fs::remove_file(&path).unwrap();
            assert_eq!(names(dir.path()), Vec::<String>::new());
        }
    }

    #[test]
    fn a_hidden_file_is_removed_unless_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let hidden = dir.path().join(".a.part");
        let file = File::create(&hidden).unwrap();
        drop(Part { file, hidden: Some(hidden.clone()) });
        assert!(!hidden.exists());
        let file = File::create(&hidden).unwrap();
        Part { file, hidden: Some(hidden) }.keep(&dir.path().join("a")).unwrap();
        assert_eq!(names(dir.path()), ["a"]);
    }
}
