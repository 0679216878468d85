//! `--pid-file`: where engines read the process id. It is made sure that it can be written before there is a
//! process, written under a temporary name and renamed, so that a reader never sees an empty file.
//!
//! ```text
//! DIR/.NAME    empty, from before the process is made; removed when that fails
//! DIR/NAME     the number, without a newline
//! ```
//! A device or a pipe of that name is written to and not replaced: `/dev/null` stays what it is.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use onggi_sys::SysContext;
use rustix::{fs::OFlags, io::Errno};

use crate::error::{Result, StartFailureError, Step};

/// A pid file that can be written.
#[derive(Debug)]
pub(crate) struct PidFile<'a> {
    at: &'a Path,
    /// What becomes the file; absent where the file is no ordinary one, and when it has been written.
    temporary: Option<PathBuf>,
}

impl<'a> PidFile<'a> {
    /// Makes the temporary file.
    pub(crate) fn prepare(at: &'a Path) -> Result<Self> {
        let name = at.file_name().unwrap_or_default().to_string_lossy();
        let temporary = at.with_file_name(format!(".{name}"));
        match fs::symlink_metadata(at) {
            Ok(there) if there.is_dir() => Err(Errno::ISDIR.into()),
            Ok(there) if !there.is_file() && !there.is_symlink() => return Ok(Self { at, temporary: None }),
            _ => make(&temporary),
        }
        .sys("write", || format!("{at:?}"))
        .step(|| step(at))
        .map_err(hint)?;
        Ok(Self { at, temporary: Some(temporary) })
    }

    /// Writes the number.
    pub(crate) fn write(mut self, pid: i32) -> Result<()> {
        let text = pid.to_string();
        let written = match self.temporary.take() {
            Some(temporary) => fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, self.at)),
            None => write_into(self.at, &text),
        };
        written.sys("write", || format!("{:?}", self.at)).step(|| step(self.at)).map_err(hint)
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Best effort: an empty file with a dot is in nobody's way.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// What a killed call left is replaced; a link that somebody put there is not followed.
fn make(temporary: &Path) -> io::Result<()> {
    let _ = fs::remove_file(temporary);
    fs::OpenOptions::new().write(true).create_new(true).open(temporary).map(drop)
}

/// A pipe that nobody reads is an error and no reason to wait.
fn write_into(at: &Path, text: &str) -> io::Result<()> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    fs::OpenOptions::new().write(true).custom_flags(flags).open(at)?.write_all(text.as_bytes())
}

fn step(at: &Path) -> String {
    format!("write pid file {}", at.display())
}

fn hint(failure: StartFailureError) -> StartFailureError {
    failure.hint("--pid-file takes a file in a directory that exists and can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("onggi-pid-file-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("make a directory");
        dir
    }

    #[test]
    fn the_number_appears_whole_and_nothing_else_stays() {
        let dir = directory("whole");
        let at = dir.join("pid");
        fs::write(dir.join(".pid"), "left by a crash").expect("write");
        let file = PidFile::prepare(&at).expect("prepare");
        assert!(!at.exists(), "there is no process yet");
        file.write(4711).expect("write");
        assert_eq!(fs::read_to_string(&at).expect("read"), "4711");
        drop(PidFile::prepare(&at).expect("prepare"));
        assert_eq!(fs::read_dir(&dir).expect("list").count(), 1, "a call that fails leaves nothing");
        fs::remove_dir_all(dir).expect("remove");
    }

    #[test]
    fn what_is_no_ordinary_file_is_not_replaced() {
        PidFile::prepare(Path::new("/dev/null")).expect("prepare").write(1).expect("write");
        assert!(!fs::metadata("/dev/null").expect("stat").is_file());
        let dir = directory("kinds");
        assert!(PidFile::prepare(&dir).expect_err("a directory").to_string().contains("EISDIR"));
        assert!(PidFile::prepare(&dir.join("no/pid")).expect_err("no directory").to_string().contains("ENOENT"));
        fs::remove_dir_all(dir).expect("remove");
    }
}
