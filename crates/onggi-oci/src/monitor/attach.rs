//! The attach clients: who is connected, what waits to be sent to whom, what they sent.
//!
//! Output goes to every client. Sends never block: what a socket does not take is queued, and while
//! anything is queued ([`Clients::busy`]) no more output is read. The *primary* client, the foreground
//! command that started the container, is waited for, because its user asked for all of the output. Any
//! other client is dropped when it has taken nothing for [`STALL_TIME`], so that a forgotten terminal
//! cannot hold up the workload.

use std::{
    io::IoSlice,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use onggi_spec::attach::{FrameKind, MAX_FRAME, header};
use onggi_sys::{
    Errno,
    event::{Epoll, EventFlags},
    unix,
};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::{
    frame::{Decoder, Input},
    queue::ByteQueue,
};

/// Connections at once; one more is closed at once. A person attaches from a few terminals.
pub(super) const MAX_CLIENTS: usize = 64;

/// Bound of what is queued for one client: one read while the workload runs; at its exit also all that
/// is left in both pipes (1 MiB each).
const QUEUE: usize = 4 * 1024 * 1024;

/// How long a client other than the primary may hold up the workload.
const STALL_TIME: Duration = Duration::from_millis(500);

/// Slot of the primary client.
const PRIMARY: usize = 0;

#[derive(Debug)]
struct Client {
    fd: OwnedFd,
    decoder: Decoder,
    queue: ByteQueue,
    /// What epoll watches it for; `None` while it is not registered.
    watched: Option<EventFlags>,
    /// When the queue last changed from empty or got shorter.
    progress: Instant,
    /// Its last frame is queued; it is closed when that is sent.
    last: bool,
}

/// Receives what clients ask for.
pub(super) trait Requests {
    /// Bytes for stdin. All of them are taken; see [`Requests::stdin_full`].
    fn stdin(&mut self, bytes: &[u8]);
    /// The end of stdin.
    fn stdin_eof(&mut self);
    /// A new terminal size.
    fn resize(&mut self, columns: u16, rows: u16);
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    slots: Vec<Option<Client>>,
    first_token: u64,
    /// The primary client has promised to clean up.
    promised: bool,
    /// Reading from clients is suspended until stdin has room.
    paused: bool,
}

impl Clients {
    /// `primary` is served from the beginning. Tokens from `first_token` upwards belong to clients.
    pub(super) fn new(primary: Option<OwnedFd>, first_token: u64, epoll: &Epoll) -> Self {
        let mut slots = Vec::with_capacity(MAX_CLIENTS + 1);
        slots.push(primary.map(Client::new));
        let mut clients = Self { slots, first_token, promised: false, paused: false };
        clients.watch(PRIMARY, epoll);
        clients
    }

    /// Any client at all.
    pub(super) fn any(&self) -> bool {
        self.slots.iter().any(Option::is_some)
    }

    /// Some client has not taken all output yet.
    pub(super) fn busy(&self) -> bool {
        self.slots.iter().flatten().any(|c| !c.queue.is_empty())
    }

    /// When the next stalled client has to be dropped by [`Clients::drop_stalled`].
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        self.slots.iter().skip(PRIMARY + 1).flatten().filter_map(Client::patience_ends).min()
    }

    /// Drops the clients that have held up the workload for too long.
    pub(super) fn drop_stalled(&mut self, now: Instant) {
        for client in self.slots.iter_mut().skip(PRIMARY + 1) {
            if client.as_ref().is_some_and(|c| c.patience_ends().is_some_and(|at| at <= now)) {
                *client = None;
            }
        }
    }

    /// Some client besides the primary one.
    pub(super) fn has_others(&self) -> bool {
        self.slots[PRIMARY + 1..].iter().any(Option::is_some)
    }

    /// The primary client has not taken all output yet.
    pub(super) fn primary_busy(&self) -> bool {
        self.slots[PRIMARY].as_ref().is_some_and(|c| !c.queue.is_empty())
    }

    /// The primary client cleans up; the exit command is not needed.
    pub(super) fn promised(&self) -> bool {
        self.promised
    }

    /// Takes connections from the listener. Only root and `owner` are served.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, owner: u32, epoll: &Epoll) {
        while let Ok(Some(fd)) = unix::accept(listener) {
            let allowed = unix::peer_credentials(fd.as_fd()).is_ok_and(|peer| peer.uid == 0 || peer.uid == owner);
            let Some(slot) = self.free_slot() else { continue };
            if allowed {
                self.slots[slot] = Some(Client::new(fd));
                self.watch(slot, epoll);
            }
        }
    }

    /// Sends output to every client, in frames.
    pub(super) fn broadcast(&mut self, kind: FrameKind, bytes: &[u8], epoll: &Epoll) {
        for slot in 0..self.slots.len() {
            if let Some(client) = &mut self.slots[slot] {
                let sent = bytes.chunks(MAX_FRAME).try_for_each(|part| client.send(kind, part));
                self.settle(slot, sent, epoll);
            }
        }
    }

    /// Sends the last frame. Clients other than the primary are closed once they have it.
    pub(super) fn farewell(&mut self, record: &[u8], epoll: &Epoll) {
        self.paused = false;
        for slot in 0..self.slots.len() {
            if let Some(client) = &mut self.slots[slot] {
                client.last = slot != PRIMARY;
                let sent = client.send(FrameKind::Exit, record);
                self.settle(slot, sent, epoll);
            }
        }
    }

    /// Drops every client but the primary.
    pub(super) fn drop_others(&mut self) {
        self.slots.truncate(PRIMARY + 1);
    }

    /// Handles readiness of the client of `token`.
    pub(super) fn ready(
        &mut self,
        token: u64,
        flags: EventFlags,
        buffer: &mut [u8],
        requests: &mut impl Requests,
        epoll: &Epoll,
    ) {
        let slot = (token - self.first_token) as usize;
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let mut outcome = Ok(());
        if flags.contains(EventFlags::OUT) {
            outcome = client.send_queued();
        }
        if outcome.is_ok() && !self.paused && flags.intersects(READABLE) {
            outcome = client.receive(buffer, requests, slot == PRIMARY, &mut self.promised);
        }
        self.settle(slot, outcome, epoll);
    }

    /// Suspends or resumes reading from clients.
    pub(super) fn pause(&mut self, paused: bool, epoll: &Epoll) {
        if self.paused != paused {
            self.paused = paused;
            for slot in 0..self.slots.len() {
                self.watch(slot, epoll);
            }
        }
    }

    /// Gives memory back that no client needs now.
    pub(super) fn trim(&mut self) {
        for client in self.slots.iter_mut().flatten() {
            client.queue.trim();
        }
    }

    fn free_slot(&mut self) -> Option<usize> {
        if let Some(free) = (PRIMARY + 1..self.slots.len()).find(|&i| self.slots[i].is_none()) {
            return Some(free);
        }
        if self.slots.len() > MAX_CLIENTS {
            return None;
        }
        self.slots.push(None);
        Some(self.slots.len() - 1)
    }

    fn settle(&mut self, slot: usize, outcome: Result<(), Gone>, epoll: &Epoll) {
        if outcome.is_err() || self.slots[slot].as_ref().is_some_and(Client::is_done) {
            if let Some(client) = self.slots[slot].take() {
                // Closing would do as well; a failure here changes nothing.
                let _ = epoll.remove(&client.fd);
            }
        } else {
            self.watch(slot, epoll);
        }
    }

    /// Tells epoll what a client is waited for. A paused client without output leaves epoll altogether:
    /// a hang-up would otherwise be reported again and again.
    fn watch(&mut self, slot: usize, epoll: &Epoll) {
        let (token, paused) = (self.first_token + slot as u64, self.paused);
        let Some(client) = &mut self.slots[slot] else { return };
        let mut wanted = if paused { EventFlags::empty() } else { EventFlags::IN };
        wanted.set(EventFlags::OUT, !client.queue.is_empty());
        let wanted = (!wanted.is_empty()).then_some(wanted);
        let changed = match (client.watched, wanted) {
            (old, new) if old == new => return,
            (None, Some(new)) => epoll.add(&client.fd, token, new),
            (Some(_), Some(new)) => epoll.modify(&client.fd, token, new),
            (_, None) => epoll.remove(&client.fd),
        };
        match changed {
            Ok(()) => client.watched = wanted,
            // Unwatchable, hence useless: the kernel is out of memory, or fd 4 was not a socket.
            Err(_) => self.slots[slot] = None,
        }
    }
}

const READABLE: EventFlags = EventFlags::IN.union(EventFlags::HUP).union(EventFlags::ERR);

/// The client has to be dropped: it left, broke the protocol or is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gone;

impl Client {
    fn new(fd: OwnedFd) -> Self {
        let (decoder, queue) = (Decoder::default(), ByteQueue::new(QUEUE));
        Self { fd, decoder, queue, watched: None, progress: Instant::now(), last: false }
    }

    fn patience_ends(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then(|| self.progress + STALL_TIME)
    }

    fn is_done(&self) -> bool {
        self.last && self.queue.is_empty()
    }

    /// Sends a frame; what the socket does not take is queued.
    fn send(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), Gone> {
        let header = header(kind, payload.len() as u32);
        let mut sent = 0;
        if self.queue.is_empty() {
            sent = send_now(&self.fd, &[IoSlice::new(&header), IoSlice::new(payload)])?;
            self.progress = if sent < header.len() + payload.len() { Instant::now() } else { self.progress };
        }
        let whole = header.len() + payload.len();
        if sent == whole {
            return Ok(());
        }
        if sent < header.len() {
            self.queue.push(&header[sent..]).map_err(|_| Gone)?;
        }
        self.queue.push(&payload[sent.saturating_sub(header.len())..]).map_err(|_| Gone)
    }

    fn send_queued(&mut self) -> Result<(), Gone> {
        while !self.queue.is_empty() {
            match send_now(&self.fd, &[IoSlice::new(self.queue.front())])? {
                0 => break,
                n => {
                    self.queue.consume(n);
                    self.progress = Instant::now();
                }
            }
        }
        Ok(())
    }

    /// Takes what the client sent, at most one buffer full; the rest is reported again.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        requests: &mut impl Requests,
        primary: bool,
        promised: &mut bool,
    ) -> Result<(), Gone> {
        let len = match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Gone),
            Ok((len, _)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return Err(Gone),
        };
        let mut input = &buffer[..len];
        while let Some(request) = self.decoder.next(&mut input).map_err(|_| Gone)? {
            match request {
                Input::Stdin(bytes) => requests.stdin(bytes),
                Input::StdinEof => requests.stdin_eof(),
                Input::Resize { columns, rows } => requests.resize(columns, rows),
                Input::WillCleanUp => *promised |= primary,
            }
        }
        Ok(())
    }
}

/// Sends without waiting; 0 when the socket is full.
fn send_now(fd: &OwnedFd, parts: &[IoSlice<'_>]) -> Result<usize, Gone> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match rustix::net::sendmsg(fd, parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(n) => return Ok(n),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(_) => return Err(Gone),
        }
    }
}
