//! The bounded log file of one container.
//!
//! ```text
//! <path>        current file, Docker's json-file format, mode 0600, written by this monitor alone
//! <path>.1 …    older files, newest first; at most max_files in all
//! <path>.new    exists only while the files are rotated; a crash may leave an empty one
//! ```
//!
//! Entries are gathered in one buffer and written with one call per read of the workload's output. A file
//! is replaced before the entry that would take it past `max_size`, so all files together stay within
//! `max_size * max_files` (an entry that is larger by itself makes a file of its own). The log never stops
//! the workload: what the disk does not take is dropped, counted, and the count is logged once writing
//! works again. An entry is never left half-written.

use std::{
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use onggi_sys::{Errno, resident::Region};
use rustix::fs::{Mode, OFlags};

use super::{
    clock::{Clock, now_ns},
    encode::{self, Source, Tail},
    lines::MAX_ENTRY,
};

/// Size of the buffer: two entries of the worst kind, and a few thousand ordinary ones.
const BUFFER: usize = 256 * 1024;
const _: () = assert!(BUFFER >= 2 * encode::worst_case(MAX_ENTRY));

/// Mode of log files: they may hold secrets of the workload.
const LOG_MODE: Mode = Mode::from_raw_mode(0o600);

/// Opens the log for appending, making it when it is missing. Never through a symlink.
pub(super) fn open(path: &Path) -> onggi_sys::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    onggi_sys::SysContext::sys(rustix::fs::open(path, flags, LOG_MODE), "open", || format!("{path:?}"))
}

/// Bounds of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of one file.
    pub(super) max_size: u64,
    /// Files in all, at least 1.
    pub(super) max_files: u32,
}

/// The writer.
#[derive(Debug)]
pub(super) struct Log<'p> {
    path: &'p Path,
    file: OwnedFd,
    bounds: Bounds,
    /// Bytes in the current file, all of them whole entries.
    size: u64,
    buffer: Region,
    used: usize,
    clock: Clock,
    tail: Tail,
    lost: u64,
    /// Lost entries whose notice is in the buffer.
    announced: u64,
    last_error: Errno,
    /// Rotation failed since the last [`Log::begin`]; it is not tried again before the next one.
    stuck: bool,
}

impl<'p> Log<'p> {
    /// Takes over a file opened by [`open`].
    pub(super) fn new(path: &'p Path, file: OwnedFd, bounds: Bounds) -> onggi_sys::Result<Self> {
        let size = rustix::fs::fstat(&file).map_or(0, |s| s.st_size.max(0).cast_unsigned());
        Ok(Self {
            path,
            file,
            bounds,
            size,
            buffer: Region::new(BUFFER)?,
            used: 0,
            clock: Clock::new(),
            tail: Tail::new(Source::Stdout, b""),
            lost: 0,
            announced: 0,
            last_error: Errno::NOSPC,
            stuck: false,
        })
    }

    /// Begins a batch of entries of one source that share the time `now`.
    pub(super) fn begin(&mut self, source: Source, now: i64) {
        self.tail = Tail::new(source, self.clock.format(now));
        self.stuck = false;
    }

    /// Adds an entry of at most [`MAX_ENTRY`] bytes.
    pub(super) fn append(&mut self, line: &[u8], newline: bool) {
        if self.buffer.len() - self.used < encode::worst_case(line.len()) {
            self.flush();
        }
        let len = encode::entry(&mut self.buffer[self.used..], line, newline, &self.tail);
        let before = self.size + self.used as u64;
        if before == 0 || before + len as u64 <= self.bounds.max_size {
            self.used += len;
            return;
        }
        let at = self.used;
        self.write_out();
        if self.rotate_if_full(len as u64) {
            self.buffer.copy_within(at..at + len, 0);
            self.used = len;
        } else {
            self.lost += 1;
        }
    }

    /// Writes what was gathered; announces earlier losses when that worked.
    pub(super) fn flush(&mut self) {
        self.write_out();
        if self.lost > 0 && self.try_again() {
            self.announce();
            self.write_out();
        }
    }

    /// Gives the buffer's memory back.
    pub(super) fn trim(&mut self) {
        if self.used == 0 {
            self.buffer.release();
        }
    }

    /// Entries that were dropped and not announced yet.
    #[cfg(test)]
    fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether a notice may be worth a try: the file has room, or rotation makes some.
    fn try_again(&mut self) -> bool {
        !self.stuck && self.rotate_if_full(NOTICE_ROOM)
    }

    fn announce(&mut self) {
        let text = notice(self.lost, self.last_error);
        let tail = Tail::new(Source::Stderr, self.clock.format(now_ns()));
        self.used = encode::entry(&mut self.buffer, text.as_bytes(), true, &tail);
        self.announced = self.lost;
        self.lost = 0;
    }

    /// Writes the buffer. What cannot be written whole is cut off again and counted.
    fn write_out(&mut self) {
        let mut done = 0;
        while done < self.used {
            match rustix::io::write(&self.file, &self.buffer[done..self.used]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    self.last_error = errno;
                    break;
                }
            }
        }
        let written = &self.buffer[..done];
        let whole = if done == self.used { done } else { memchr::memrchr(b'\n', written).map_or(0, |i| i + 1) };
        if whole < done {
            // Cannot fail in a way that matters: at worst the file ends in a torn entry.
            let _ = rustix::fs::ftruncate(&self.file, self.size + whole as u64);
        }
        self.size += whole as u64;
        self.count_lost(whole);
        self.used = 0;
    }

    /// Entries of the buffer beyond `whole` are lost; a lost notice stands for what it announced.
    fn count_lost(&mut self, whole: usize) {
        let entries = memchr::memchr_iter(b'\n', &self.buffer[whole..self.used]).count() as u64;
        if entries > 0 {
            self.lost += entries;
            if self.announced > 0 {
                self.lost += self.announced - 1;
                self.stuck = true;
            }
        }
        self.announced = 0;
    }

    /// Makes room for `len` more bytes by a new file where needed. False: there is none.
    fn rotate_if_full(&mut self, len: u64) -> bool {
        if self.size == 0 || self.size + len <= self.bounds.max_size {
            return true;
        }
        if self.stuck {
            return false;
        }
        match self.rotate() {
            Ok(()) => true,
            Err(errno) => {
                self.last_error = errno;
                self.stuck = true;
                false
            }
        }
    }

    /// The new file is made first: when the disk is full nothing has changed yet.
    fn rotate(&mut self) -> Result<(), Errno> {
        let fresh = with_suffix(self.path, "new");
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&fresh, flags, LOG_MODE)?;
        for older in (1..self.bounds.max_files).rev() {
            let from = match older {
                1 => self.path.to_owned(),
                n => with_suffix(self.path, &(n - 1).to_string()),
            };
            match rustix::fs::rename(&from, with_suffix(self.path, &older.to_string())) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        rustix::fs::rename(&fresh, self.path)?;
        self.file = file;
        self.size = 0;
        Ok(())
    }
}

/// Room that is sought before a notice is written.
const NOTICE_ROOM: u64 = 256;

fn notice(lost: u64, errno: Errno) -> String {
    let why = onggi_sys::error::describe(errno.raw_os_error());
    format!("[onggi: {lost} log entries were lost: {why}]")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.push(b'.');
    name.extend_from_slice(suffix.as_bytes());
    std::ffi::OsString::from_vec(name).into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("onggi-log-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
        fn log(&self) -> PathBuf {
            self.0.join("container.log")
        }
        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn texts(path: &Path) -> Vec<String> {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["log"].as_str().unwrap().to_owned())
            .collect()
    }

    fn bounds(max_size: u64, max_files: u32) -> Bounds {
        Bounds { max_size, max_files }
    }

    #[test]
    fn entries_are_appended_to_what_is_there() {
        let dir = Dir::new("append");
        let path = dir.log();
        for round in ["one", "two"] {
            let mut log = Log::new(&path, open(&path).unwrap(), bounds(1 << 20, 1)).unwrap();
            log.begin(Source::Stdout, 0);
            log.append(round.as_bytes(), true);
            log.append(b"part", false);
            log.flush();
            log.trim();
        }
        assert_eq!(texts(&path), ["one\n", "part", "two\n", "part"]);
    }

    #[test]
    fn rotation_keeps_the_newest_files_each_within_its_bound_and_loses_no_entry_between_them() {
        let dir = Dir::new("rotate");
        let path = dir.log();
        let mut log = Log::new(&path, open(&path).unwrap(), bounds(1000, 3)).unwrap();
        for n in 0..200 {
            log.begin(Source::Stdout, 1_700_000_000_000_000_000);
            log.append(format!("line {n}").as_bytes(), true);
            if n % 7 == 0 {
                log.flush();
            }
        }
        log.flush();
        assert_eq!(dir.names(), ["container.log", "container.log.1", "container.log.2"]);
        let mut all = Vec::new();
        for name in ["container.log.2", "container.log.1", "container.log"] {
            let file = dir.0.join(name);
            assert!(fs::metadata(&file).unwrap().len() <= 1000);
            all.extend(texts(&file));
        }
        let expected: Vec<_> = (200 - all.len()..200).map(|n| format!("line {n}\n")).collect();
        assert_eq!(all, expected);
        assert!(all.len() >= 20);
    }

    #[test]
    fn a_single_file_starts_over_and_an_oversized_entry_has_a_file_of_its_own() {
        let dir = Dir::new("single");
        let path = dir.log();
        let mut log = Log::new(&path, open(&path).unwrap(), bounds(300, 1)).unwrap();
        log.begin(Source::Stdout, 0);
        for text in ["small", &"x".repeat(5000), "last"] {
            log.append(text.as_bytes(), true);
        }
        log.flush();
        assert_eq!(dir.names(), ["container.log"]);
        assert_eq!(texts(&path), ["last\n"]);
    }

    #[test]
    fn more_than_a_buffer_of_the_worst_bytes_arrives_complete() {
        let dir = Dir::new("worst");
        let path = dir.log();
        let mut log = Log::new(&path, open(&path).unwrap(), bounds(u64::MAX / 2, 2)).unwrap();
        log.begin(Source::Stderr, 0);
        for _ in 0..20 {
            log.append(&[0xff; MAX_ENTRY], true);
        }
        log.flush();
        let texts = texts(&path);
        assert_eq!(texts.len(), 20);
        assert!(texts.iter().all(|t| t.chars().count() == MAX_ENTRY + 1));
    }

    #[test]
    fn a_file_that_takes_nothing_costs_entries_but_they_are_counted_and_announced() {
        let dir = Dir::new("full");
        let path = dir.log();
        let full = rustix::fs::open("/dev/full", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut log = Log::new(&path, full, bounds(1 << 20, 2)).unwrap();
        for _ in 0..3 {
            log.begin(Source::Stdout, 0);
            log.append(b"lost", true);
            log.append(b"lost too", true);
            log.flush();
        }
        assert_eq!(log.lost(), 6);
        log.file = open(&path).unwrap();
        log.begin(Source::Stdout, 0);
        log.append(b"kept", true);
        log.flush();
        assert_eq!(log.lost(), 0);
        assert_eq!(texts(&path), ["kept\n", "[onggi: 6 log entries were lost: no space left on device (ENOSPC)]\n"]);
    }

    #[test]
    fn a_directory_that_is_gone_costs_entries_not_the_writer() {
        let dir = Dir::new("gone");
        let path = dir.0.join("sub").join("container.log");
        fs::create_dir(dir.0.join("sub")).unwrap();
        let mut log = Log::new(&path, open(&path).unwrap(), bounds(200, 2)).unwrap();
        fs::remove_dir_all(dir.0.join("sub")).unwrap();
        log.begin(Source::Stdout, 0);
        for _ in 0..10 {
            log.append(b"a line that fills the file quickly", true);
        }
        log.flush();
        assert!(log.lost() >= 8, "{}", log.lost());
        fs::create_dir(dir.0.join("sub")).unwrap();
        log.begin(Source::Stdout, 0);
        log.append(b"back", true);
        log.flush();
        assert_eq!(log.lost(), 0);
        let texts = texts(&path);
        assert!(texts.iter().any(|t| t == "back\n") || texts[0].contains("lost"), "{texts:?}");
    }
}
