//! `logs`: reads the json-file log, over its rotations, and follows it while the container runs.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use onggi_spec::ContainerId;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};
use serde::Deserialize;

use crate::{Engine, EngineError};

/// More rotated files than any configuration keeps.
const MAX_ROTATIONS: u32 = 1000;
/// How long a quiet log is waited for before the container is looked at again.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Which lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on as the container writes.
    pub follow: bool,
    /// Only the last so many lines, of those that `since` and `until` leave.
    pub tail: Option<usize>,
    /// Only lines written at this time or later.
    pub since: Option<Timestamp>,
    /// Only lines written at this time or earlier; what is followed ends then.
    pub until: Option<Timestamp>,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogEntry {
    /// The text, with its newline unless the line was cut.
    pub log: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub time: String,
    /// The bytes without the newline in base64, when they are not UTF-8; else empty.
    #[serde(default)]
    pub raw: String,
}

impl LogEntry {
    /// What the container wrote, byte for byte.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        let raw = Some(&self.raw).filter(|raw| !raw.is_empty());
        // A damaged field leaves the text, as a log that another engine wrote does.
        let Some(mut bytes) = raw.and_then(|raw| STANDARD.decode(raw).ok()) else {
            return Cow::Borrowed(self.log.as_bytes());
        };
        bytes.extend(self.log.ends_with('\n').then_some(b'\n'));
        Cow::Owned(bytes)
    }
}

/// Reads a log line by line.
#[derive(Debug)]
pub struct LogReader<'e> {
    engine: &'e Engine,
    id: ContainerId,
    path: PathBuf,
    first: VecDeque<LogEntry>,
    current: Option<BufReader<File>>,
    partial: Vec<u8>,
    options: LogOptions,
}

impl LogOptions {
    /// A time that cannot be read is no reason to hide the line.
    fn wants(&self, entry: &LogEntry) -> bool {
        let Ok(time) = entry.time.parse::<Timestamp>() else { return true };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }

    fn bounded(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Timestamp::now() > until)
    }
}

impl Engine {
    /// Opens the log of a container.
    ///
    /// # Errors
    /// No such container, or its log cannot be read.
    pub fn logs(&self, name: &str, options: LogOptions) -> Result<LogReader<'_>, EngineError> {
        let record = self.find(name)?;
        let path = self.paths.log_file(&record.id);
        let mut reader = LogReader {
            engine: self,
            id: record.id,
            path,
            first: VecDeque::new(),
            current: None,
            partial: Vec::new(),
            options,
        };
        reader.read_existing(options.tail)?;
        Ok(reader)
    }
}

impl LogReader<'_> {
    /// The next line; `None` at the end, which for a followed log is the container's end.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<LogEntry>, EngineError> {
        if let Some(entry) = self.first.pop_front() {
            return Ok(Some(entry));
        }
        while self.options.follow {
            // Asked before the log is read: what was written before the end is read after it.
            let ended = self.options.is_over() || !self.engine.monitor_alive(&self.id)?;
            if let Some(entry) = self.read_wanted()? {
                return Ok(Some(entry));
            }
            if ended {
                self.options.follow = false;
            } else if !self.reopen_rotated()? {
                self.wait_for_change()?;
            }
        }
        Ok(None)
    }

    /// Reads everything written so far, oldest first, keeping the last `tail` lines.
    fn read_existing(&mut self, tail: Option<usize>) -> Result<(), EngineError> {
        let keep = tail.unwrap_or(usize::MAX);
        let rotated: Vec<PathBuf> =
            (1..MAX_ROTATIONS).map(|n| rotation(&self.path, n)).take_while(|p| p.exists()).collect();
        let mut entries = VecDeque::new();
        for path in rotated.iter().rev().chain([&self.path.clone()]) {
            let Some(file) = open(path)? else { continue };
            self.current = Some(BufReader::new(file));
            while let Some(entry) = self.read_wanted()? {
                entries.push_back(entry);
                if entries.len() > keep {
                    entries.pop_front();
                }
            }
        }
        self.first = entries;
        Ok(())
    }

    /// The next line that is asked for.
    fn read_wanted(&mut self) -> Result<Option<LogEntry>, EngineError> {
        while let Some(entry) = self.read_current()? {
            if !self.options.bounded() || self.options.wants(&entry) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The next whole line of the open file.
    fn read_current(&mut self) -> Result<Option<LogEntry>, EngineError> {
        let Some(reader) = &mut self.current else {
            self.current = open(&self.path)?.map(BufReader::new);
            return Ok(None);
        };
        loop {
            let n = reader.read_until(b'\n', &mut self.partial);
            n.map_err(|source| EngineError::ReadFile { path: self.path.clone(), source })?;
            if self.partial.last() != Some(&b'\n') {
                return Ok(None);
            }
            let entry = serde_json::from_slice(&self.partial);
            self.partial.clear();
            // A line that a power cut left half-written is passed over, as Docker does.
            if let Ok(entry) = entry {
                return Ok(Some(entry));
            }
        }
    }

    /// True when the file was rotated away from under us and the new one is open.
    fn reopen_rotated(&mut self) -> Result<bool, EngineError> {
        use std::os::unix::fs::MetadataExt;
        let Some(current) = &self.current else { return Ok(false) };
        let failed = |source| EngineError::ReadFile { path: self.path.clone(), source };
        let ours = current.get_ref().metadata().map_err(failed)?;
        let Some(file) = open(&self.path)? else { return Ok(false) };
        if file.metadata().map_err(failed)?.ino() == ours.ino() {
            return Ok(false);
        }
        self.current = Some(BufReader::new(file));
        self.partial.clear();
        Ok(true)
    }

    /// Sleeps until something in the log's directory changes, or for a moment.
    fn wait_for_change(&self) -> Result<(), EngineError> {
        let failed = |e: rustix::io::Errno| EngineError::ReadFile { path: self.path.clone(), source: e.into() };
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(failed)?;
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, dir, what).map_err(failed)?;
        match poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&IDLE)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }
}

fn rotation(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn open(path: &Path) -> Result<Option<File>, EngineError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EngineError::ReadFile { path: path.to_owned(), source }),
    }
}
