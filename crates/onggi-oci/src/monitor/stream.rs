//! One output of the workload: its descriptor and the line that is not complete yet.

use std::os::fd::OwnedFd;

use onggi_spec::attach::{FrameKind, MAX_FRAME};
use onggi_sys::{
    Errno,
    event::{Epoll, EventFlags},
    resident::Region,
};

use super::{
    attach::Clients,
    clock::now_ns,
    encode::Source,
    lines::{Cut, MAX_ENTRY, cut},
    log::Log,
};

/// Bytes taken by one read: what stays in a CPU's second-level cache until it is written again.
const CHUNK: usize = 256 * 1024;

/// Room in front of a read for the incomplete line that it continues.
const PREFIX: usize = MAX_ENTRY;

/// Size of the buffer that both streams share for reading.
pub(super) const READ_BUFFER: usize = PREFIX + CHUNK;

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// This many bytes; there may be more.
    Bytes(usize),
    /// Nothing for now.
    Empty,
    /// The end, or there was no stream.
    Closed,
}

/// Where output goes.
pub(super) struct Sinks<'s, 'p> {
    pub(super) log: &'s mut Log<'p>,
    pub(super) clients: &'s mut Clients,
    pub(super) buffer: &'s mut Region,
    pub(super) epoll: &'s Epoll,
}

/// stdout (or the terminal) or stderr of the workload.
#[derive(Debug)]
pub(super) struct Stream {
    fd: Option<OwnedFd>,
    source: Source,
    token: u64,
    partial: Region,
    partial_len: usize,
    watched: bool,
}

impl Stream {
    /// `fd` is non-blocking.
    pub(super) fn new(fd: Option<OwnedFd>, source: Source, token: u64, partial: Region) -> Self {
        Self { fd, source, token, partial, partial_len: 0, watched: false }
    }

    /// Memory for [`Stream::new`].
    pub(super) fn partial_region() -> onggi_sys::Result<Region> {
        Region::new(PREFIX)
    }

    /// Waits for output, or stops waiting: then a full pipe holds the workload up.
    pub(super) fn watch(&mut self, wanted: bool, epoll: &Epoll) {
        let Some(fd) = &self.fd else { return };
        let changed = match (self.watched, wanted) {
            (false, true) => epoll.add(fd, self.token, EventFlags::IN),
            (true, false) => epoll.remove(fd),
            _ => return,
        };
        if changed.is_ok() {
            self.watched = wanted;
        }
    }

    /// Reads once and hands the bytes to the clients and the log.
    pub(super) fn pump(&mut self, sinks: &mut Sinks<'_, '_>) -> Pumped {
        let Some(fd) = &self.fd else { return Pumped::Closed };
        // With clients, one read is one frame.
        let chunk = if sinks.clients.any() { MAX_FRAME } else { CHUNK };
        let len = match rustix::io::read(fd, &mut sinks.buffer[PREFIX..PREFIX + chunk]) {
            Ok(len) if len > 0 => len,
            Err(Errno::AGAIN | Errno::INTR) => return Pumped::Empty,
            // EIO: nobody has the terminal open any more.
            Ok(_) | Err(_) => {
                self.close(sinks);
                return Pumped::Closed;
            }
        };
        let kind = match self.source {
            Source::Stdout => FrameKind::Stdout,
            Source::Stderr => FrameKind::Stderr,
        };
        sinks.clients.broadcast(kind, &sinks.buffer[PREFIX..PREFIX + len], sinks.epoll);
        self.record(len, sinks);
        Pumped::Bytes(len)
    }

    /// Logs what is left of the last line and closes the stream.
    pub(super) fn close(&mut self, sinks: &mut Sinks<'_, '_>) {
        self.watch(false, sinks.epoll);
        self.fd = None;
        if self.partial_len > 0 {
            sinks.log.begin(self.source, now_ns());
            sinks.log.append(&self.partial[..self.partial_len], false);
            sinks.log.flush();
            self.partial_len = 0;
        }
    }

    /// Gives unused memory back.
    pub(super) fn trim(&mut self) {
        if self.partial_len == 0 {
            self.partial.release();
        }
    }

    /// Logs the `len` bytes just read, after the incomplete line they continue.
    fn record(&mut self, len: usize, sinks: &mut Sinks<'_, '_>) {
        let known = self.partial_len;
        let start = PREFIX - known;
        sinks.buffer[start..PREFIX].copy_from_slice(&self.partial[..known]);
        let data = &sinks.buffer[start..PREFIX + len];
        sinks.log.begin(self.source, now_ns());
        let logged = append_entries(sinks.log, data, known);
        sinks.log.flush();
        let rest = &data[logged..];
        self.partial[..rest.len()].copy_from_slice(rest);
        self.partial_len = rest.len();
    }
}

/// Appends all complete entries of `data`, whose first `searched` bytes hold no newline. Returns how much
/// of it was logged; less than one entry remains.
fn append_entries(log: &mut Log<'_>, data: &[u8], mut searched: usize) -> usize {
    let mut at = 0;
    loop {
        match cut(&data[at..], searched) {
            Cut::Line(len) => {
                log.append(&data[at..at + len], true);
                at += len + 1;
            }
            Cut::Part(len) => {
                log.append(&data[at..at + len], false);
                at += len;
            }
            Cut::Incomplete => return at,
        }
        searched = 0;
    }
}
