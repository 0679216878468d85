//! The long-lived part: one thread, one epoll, fixed buffers, until the workload has ended and everyone
//! who must know has been told.
//!
//! Nothing here parses JSON, and nothing allocates as time goes by. After a quiet second all memory that
//! is not needed to wait is given back, even the resident program text.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use onggi_sys::{
    event::{Epoll, EventBuffer, EventFlags, Ready, SignalFd},
    resident::Region,
};
use rustix::process::Signal;

use super::{
    attach::Clients,
    encode::Source,
    exit,
    handover::Handover,
    log::{Bounds, Log},
    stdin::{MAX_READ, Stdin},
    stream::{Pumped, READ_BUFFER, Sinks, Stream},
};

/// Quiet time after which memory is given back.
const TRIM_AFTER: Duration = Duration::from_secs(1);

/// Time for the primary client to promise that it cleans up, after it has got the last frame.
const PROMISE_TIME: Duration = Duration::from_secs(10);

/// Time for the other clients to take what is left.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// Bounds of reading what is left in the pipes after the exit: somebody else may hold them open and go on
/// writing. Two full pipes and a terminal's buffer are less than this.
const DRAIN_BYTES: usize = 3 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Reads of one stream before the other events get their turn.
const READS_PER_TURN: usize = 4;

const TOKEN_WORKLOAD: u64 = 0;
const TOKEN_SIGNALS: u64 = 1;
const TOKEN_LISTENER: u64 = 2;
const TOKEN_STDIN: u64 = 3;
const TOKEN_STDOUT: u64 = 4;
const TOKEN_STDERR: u64 = 5;
const TOKEN_CLIENTS: u64 = 16;

/// What the loop needs from the kernel, made before the workload exists so that it cannot fail later.
#[derive(Debug)]
pub(super) struct Resources {
    pub(super) epoll: Epoll,
    pub(super) signals: SignalFd,
    buffer: Region,
    partials: [Region; 2],
}

impl Resources {
    pub(super) fn prepare() -> onggi_sys::Result<Self> {
        let forwarded = FORWARDED.map(Signal::as_raw);
        Ok(Self {
            epoll: Epoll::new()?,
            signals: SignalFd::block(&forwarded)?,
            buffer: Region::new(READ_BUFFER)?,
            partials: [Stream::partial_region()?, Stream::partial_region()?],
        })
    }
}

/// Signals that are meant for the workload when they reach the monitor.
const FORWARDED: [Signal; 6] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// The descriptors that the starter hands over.
#[derive(Debug)]
pub(super) struct Descriptors {
    pub(super) workload: OwnedFd,
    pub(super) lock: OwnedFd,
    pub(super) listener: OwnedFd,
    pub(super) log: OwnedFd,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// Whether the exit command is still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The primary client cleans up.
    Promised,
    /// Nobody has said so.
    Unattended,
}

/// Serves a running workload to its end.
pub(super) fn serve(
    handover: &Handover<'_>,
    fds: Descriptors,
    primary: Option<OwnedFd>,
    resources: Resources,
) -> onggi_sys::Result<End> {
    let mut service = Service::new(handover, fds, primary, resources)?;
    let mut events = EventBuffer::new();
    service.until_exit(&mut events)?;
    let record = service.conclude();
    service.tell(&record, &mut events)?;
    Ok(if service.clients.promised() { End::Promised } else { End::Unattended })
}

/// What one wait brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handled {
    Nothing,
    Something,
    /// The workload has ended.
    Exit,
}

struct Service<'h> {
    handover: &'h Handover<'h>,
    epoll: Epoll,
    signals: SignalFd,
    workload: OwnedFd,
    listener: Option<OwnedFd>,
    stdin: Stdin,
    streams: [Stream; 2],
    clients: Clients,
    log: Log<'h>,
    buffer: Region,
    /// Held for life: a free lock means that the monitor is dead.
    _lock: OwnedFd,
}

impl<'h> Service<'h> {
    fn new(
        handover: &'h Handover<'h>,
        fds: Descriptors,
        primary: Option<OwnedFd>,
        resources: Resources,
    ) -> onggi_sys::Result<Self> {
        let Resources { epoll, signals, buffer, partials } = resources;
        epoll.add(&fds.workload, TOKEN_WORKLOAD, EventFlags::IN)?;
        epoll.add(&signals, TOKEN_SIGNALS, EventFlags::IN)?;
        epoll.add(&fds.listener, TOKEN_LISTENER, EventFlags::IN)?;
        let bounds = Bounds { max_size: handover.max_size, max_files: handover.max_files };
        let [out, err] = partials;
        let mut service = Self {
            handover,
            clients: Clients::new(primary, TOKEN_CLIENTS, &epoll),
            log: Log::new(handover.log, fds.log, bounds)?,
            stdin: Stdin::new(fds.stdin, handover.terminal, handover.interactive, TOKEN_STDIN),
            streams: [
                Stream::new(fds.stdout, Source::Stdout, TOKEN_STDOUT, out),
                Stream::new(fds.stderr, Source::Stderr, TOKEN_STDERR, err),
            ],
            workload: fds.workload,
            listener: Some(fds.listener),
            epoll,
            signals,
            buffer,
            _lock: fds.lock,
        };
        service.regulate();
        Ok(service)
    }

    /// Runs until the workload's first process has ended.
    fn until_exit(&mut self, events: &mut EventBuffer) -> onggi_sys::Result<()> {
        let mut quiet = false;
        loop {
            let handled = if quiet {
                self.trim();
                let ready = self.epoll.wait_light(events)?;
                self.handle(ready)
            } else {
                let ready = self.epoll.wait(events, Some(self.patience()))?;
                self.handle(ready)
            };
            if handled == Handled::Exit {
                return Ok(());
            }
            self.regulate();
            quiet = handled == Handled::Nothing && !self.clients.busy();
        }
    }

    /// How long to wait before something must be done though nothing happened.
    fn patience(&self) -> Duration {
        let stalled = self.clients.patience_ends();
        stalled.map_or(TRIM_AFTER, |at| at.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, events: impl Iterator<Item = Ready>) -> Handled {
        let mut handled = Handled::Nothing;
        for ready in events {
            match ready.token {
                TOKEN_WORKLOAD => return Handled::Exit,
                TOKEN_SIGNALS => self.forward_signals(),
                token => self.dispatch(token, ready.flags),
            }
            handled = Handled::Something;
        }
        handled
    }

    fn dispatch(&mut self, token: u64, flags: EventFlags) {
        match token {
            TOKEN_LISTENER => self.accept(),
            TOKEN_STDIN => self.stdin.write(&self.epoll),
            TOKEN_STDOUT => self.pump_for_a_turn(0),
            TOKEN_STDERR => self.pump_for_a_turn(1),
            TOKEN_CLIENTS.. => self.client_ready(token, flags),
            _ => {}
        }
    }

    fn accept(&mut self) {
        if let Some(listener) = &self.listener {
            self.clients.accept(listener.as_fd(), self.handover.owner, &self.epoll);
        }
    }

    fn client_ready(&mut self, token: u64, flags: EventFlags) {
        let buffer = &mut self.buffer[..MAX_READ];
        self.clients.ready(token, flags, buffer, &mut self.stdin, &self.epoll);
        self.stdin.write(&self.epoll);
        self.clients.pause(self.stdin.full(), &self.epoll);
    }

    fn pump(&mut self, stream: usize) -> Pumped {
        let (streams, mut sinks) = self.sinks();
        streams[stream].pump(&mut sinks)
    }

    fn sinks(&mut self) -> (&mut [Stream; 2], Sinks<'_, 'h>) {
        let Self { streams, log, clients, buffer, epoll, .. } = self;
        (streams, Sinks { log, clients, buffer, epoll })
    }

    fn pump_for_a_turn(&mut self, stream: usize) {
        for _ in 0..READS_PER_TURN {
            if self.clients.busy() || !matches!(self.pump(stream), Pumped::Bytes(_)) {
                break;
            }
        }
    }

    /// Brings what is waited for in line with who is full and who is not.
    fn regulate(&mut self) {
        self.clients.pause(self.stdin.full(), &self.epoll);
        if self.clients.patience_ends().is_some() {
            self.clients.drop_stalled(Instant::now());
        }
        let wanted = !self.clients.busy();
        for stream in &mut self.streams {
            stream.watch(wanted, &self.epoll);
        }
    }

    fn forward_signals(&mut self) {
        while let Some(number) = self.signals.read() {
            if let Some(signal) = Signal::from_named_raw(number) {
                // Fails only when the workload has just ended.
                let _ = rustix::process::pidfd_send_signal(&self.workload, signal);
            }
        }
    }

    fn trim(&mut self) {
        self.buffer.release();
        self.log.trim();
        self.stdin.trim();
        self.clients.trim();
        for stream in &mut self.streams {
            stream.trim();
        }
    }

    /// Everything between the exit and telling others: the status, leftover processes, leftover output,
    /// the record on disk. Returns the record's text.
    fn conclude(&mut self) -> Vec<u8> {
        let ended = exit::reap(&self.workload);
        let finished_at = super::clock::now_ns();
        self.stdin.close(&self.epoll);
        let events = exit::dissolve_cgroup(self.handover, ended);
        self.drain();
        let record = exit::record(self.handover, ended, events, finished_at);
        // Without a disk to write on the clients still learn the result below.
        let sync = if self.handover.disposable { exit::Sync::No } else { exit::Sync::Yes };
        let _ = exit::write_record(self.handover.exit_file, &record, sync);
        exit::remove_runtime_files(self.handover);
        record
    }

    fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_TIME;
        let mut budget = DRAIN_BYTES;
        for stream in 0..self.streams.len() {
            while let Pumped::Bytes(n) = self.pump(stream) {
                budget = budget.saturating_sub(n);
                if budget == 0 || Instant::now() > deadline {
                    break;
                }
            }
            let (streams, mut sinks) = self.sinks();
            streams[stream].close(&mut sinks);
        }
    }

    /// Sends the record to every client and waits, bounded, until they have it and the primary one has
    /// said whether it cleans up. What the primary has not read yet is its user's output and is waited
    /// for as long as it is connected; SIGTERM ends that too.
    fn tell(&mut self, record: &[u8], events: &mut EventBuffer) -> onggi_sys::Result<()> {
        self.listener = None;
        self.epoll.remove(&self.workload)?;
        self.clients.farewell(record, &self.epoll);
        let others = Instant::now() + FAREWELL_TIME;
        let mut promise = None;
        while self.clients.any() && !self.clients.promised() {
            let now = Instant::now();
            if now >= others {
                self.clients.drop_others();
            }
            if !self.clients.primary_busy() {
                let until = *promise.get_or_insert(now + PROMISE_TIME);
                if now >= until {
                    return Ok(());
                }
            }
            let next = if self.clients.has_others() { Some(others) } else { promise };
            for ready in self.epoll.wait(events, next.map(|at| at.saturating_duration_since(now)))? {
                match ready.token {
                    TOKEN_SIGNALS => return Ok(()),
                    token => self.dispatch(token, ready.flags),
                }
            }
        }
        Ok(())
    }
}

impl Descriptors {
    /// Names the descriptors of a handover, sent in the order of [`Descriptors::list`]. `None`: some are missing.
    pub(super) fn from_list(handover: &Handover<'_>, list: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = list.into_iter();
        Some(Self {
            workload: fds.next()?,
            lock: fds.next()?,
            listener: fds.next()?,
            log: fds.next()?,
            stdout: Some(fds.next()?),
            stderr: if handover.terminal { None } else { Some(fds.next()?) },
            stdin: if handover.terminal || handover.interactive { Some(fds.next()?) } else { None },
        })
    }

    /// All descriptors, in the order of a handover.
    pub(super) fn list(&self) -> Vec<BorrowedFd<'_>> {
        [Some(&self.workload), Some(&self.lock), Some(&self.listener), Some(&self.log)]
            .into_iter()
            .chain([self.stdout.as_ref(), self.stderr.as_ref(), self.stdin.as_ref()])
            .flatten()
            .map(AsFd::as_fd)
            .collect()
    }
}
