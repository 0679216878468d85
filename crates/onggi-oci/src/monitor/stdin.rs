//! The workload's stdin: bytes of the attach clients, in the order they came, with back-pressure.
//!
//! A workload that does not read makes the queue fill; then no more is read from any client until it has
//! drained. Stdin ends only when a client says so, never because a client left: detaching must not end
//! the workload.

use std::os::fd::OwnedFd;

use onggi_sys::{
    Errno,
    event::{Epoll, EventFlags},
};
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize};

use super::{attach::Requests, queue::ByteQueue};

/// Most that one read from a client brings.
pub(super) const MAX_READ: usize = 64 * 1024;

/// Beyond this no client is read.
const HIGH_WATER: usize = 64 * 1024;

/// The way in.
#[derive(Debug)]
pub(super) struct Stdin {
    /// The write end of a pipe, or the terminal; `None` when closed or never open.
    fd: Option<OwnedFd>,
    terminal: bool,
    /// Clients' bytes are welcome (`-i`).
    interactive: bool,
    queue: ByteQueue,
    ends: bool,
    watched: bool,
    token: u64,
}

impl Stdin {
    pub(super) fn new(fd: Option<OwnedFd>, terminal: bool, interactive: bool, token: u64) -> Self {
        let queue = ByteQueue::new(HIGH_WATER + MAX_READ);
        Self { fd, terminal, interactive, queue, ends: false, watched: false, token }
    }

    /// No more bytes may be pushed now.
    pub(super) fn full(&self) -> bool {
        self.queue.len() > HIGH_WATER
    }

    /// Writes what waits. Called when the descriptor is ready and after clients were read.
    pub(super) fn write(&mut self, epoll: &Epoll) {
        while let (Some(fd), false) = (&self.fd, self.queue.is_empty()) {
            match rustix::io::write(fd, self.queue.front()) {
                Ok(n) => self.queue.consume(n),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The workload closed its end.
                Err(_) => self.close(epoll),
            }
        }
        if self.ends && self.queue.is_empty() && self.fd.is_some() {
            self.end(epoll);
        }
        self.watch(epoll);
    }

    /// Forgets all input; the workload is gone.
    pub(super) fn close(&mut self, epoll: &Epoll) {
        if let Some(fd) = self.fd.take()
            && self.watched
        {
            // Closing removes it too.
            let _ = epoll.remove(&fd);
            self.watched = false;
        }
        self.queue.clear();
    }

    /// Gives unused memory back.
    pub(super) fn trim(&mut self) {
        self.queue.trim();
    }

    /// A pipe is closed; a terminal gets its end-of-file character when it is in canonical mode, where
    /// that has this meaning (termios(3)).
    fn end(&mut self, epoll: &Epoll) {
        self.ends = false;
        let Some(fd) = self.fd.as_ref().filter(|_| self.terminal) else { return self.close(epoll) };
        if let Ok(modes) = rustix::termios::tcgetattr(fd)
            && modes.local_modes.contains(LocalModes::ICANON)
        {
            // A full terminal loses it, as it loses a key that is pressed then.
            let _ = rustix::io::write(fd, &[modes.special_codes[SpecialCodeIndex::VEOF]]);
        }
    }

    fn watch(&mut self, epoll: &Epoll) {
        let wanted = !self.queue.is_empty();
        let Some(fd) = &self.fd else { return };
        let changed = match (self.watched, wanted) {
            (false, true) => epoll.add(fd, self.token, EventFlags::OUT),
            (true, false) => epoll.remove(fd),
            _ => return,
        };
        if changed.is_ok() {
            self.watched = wanted;
        }
    }
}

impl Requests for Stdin {
    fn stdin(&mut self, bytes: &[u8]) {
        if self.interactive && self.fd.is_some() && !self.ends {
            // Fits: clients are read only below the high-water mark, MAX_READ bytes at most.
            let _ = self.queue.push(bytes);
        }
    }

    fn stdin_eof(&mut self) {
        self.ends |= self.interactive;
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        if let Some(fd) = self.fd.as_ref().filter(|_| self.terminal) {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            // Fails only when the terminal is gone.
            let _ = rustix::termios::tcsetwinsize(fd, size);
        }
    }
}
