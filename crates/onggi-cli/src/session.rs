//! A person at a container's stdio: copies streams, forwards signals, drives the terminal.
//!
//! The engine gives a stream (run) or pipes and a terminal (exec); this module connects them with our own
//! stdin, stdout and stderr until the process ends or the user detaches with ctrl-p ctrl-q.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    thread,
};

use onggi_engine::{AttachEvent, AttachStream, Engine, EngineError, ExecSession, ProcessHandle, Started};
use rustix::termios::{self, OptionalActions, Termios};
use signal_hook::{consts as sig, iterator::Signals};
use thiserror::Error;

/// ctrl-p, ctrl-q.
const DETACH_KEYS: [u8; 2] = [16, 17];
/// What a session that the user detached from exits with, as Docker.
const DETACHED: i32 = 0;
/// Exit code when the monitor vanished and left no record.
const UNKNOWN: i32 = 137;
/// Bytes copied at a time.
const CHUNK: usize = 32 * 1024;
/// Signals that are passed on to the process instead of ending us.
const FORWARDED: [i32; 6] = [sig::SIGINT, sig::SIGTERM, sig::SIGHUP, sig::SIGQUIT, sig::SIGUSR1, sig::SIGUSR2];
/// In raw mode the terminal's own keys arrive as bytes; only what others send is passed on.
const FORWARDED_RAW: [i32; 2] = [sig::SIGTERM, sig::SIGHUP];

/// Why a session failed.
#[derive(Debug, Error)]
pub(crate) enum SessionError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A stream or the terminal.
    #[error("cannot {op}")]
    Io {
        /// What was being done.
        op: &'static str,
        /// Why.
        source: io::Error,
    },
    /// `-it` without a terminal.
    #[error("the input device is not a terminal")]
    NotATerminal,
}

impl SessionError {
    /// What to do.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(e) => e.hint(),
            Self::NotATerminal => Some("leave out -t when input comes from a pipe or a file".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

fn failed(op: &'static str) -> impl FnOnce(io::Error) -> SessionError {
    move |source| SessionError::Io { op, source }
}

/// `-it` needs a terminal on our stdin. Asked before anything is created.
pub(crate) fn check_terminal(interactive: bool, tty: bool) -> Result<(), SessionError> {
    if tty && interactive && !termios::isatty(io::stdin()) {
        return Err(SessionError::NotATerminal);
    }
    Ok(())
}

/// Stays with a started container until it ends; returns its exit code.
pub(crate) fn attached(engine: &Engine, mut started: Started, interactive: bool, tty: bool) -> Result<i32, SessionError> {
    let Some(mut stream) = started.attach.take() else { return Ok(0) };
    let raw = RawTerminal::enter(interactive && tty)?;
    forward_signals(started.process.take(), raw.is_raw())?;
    if tty {
        follow_size(StreamSize(stream.try_clone().map_err(failed("share the stream"))?))?;
    }
    if interactive {
        let writer = stream.try_clone().map_err(failed("share the stream"))?;
        thread::spawn(move || send_input(writer, tty));
    }
    let end = copy_output(&mut stream)?;
    drop(raw);
    match end {
        End::Exited(code) => {
            engine.finish(&started.record, &mut stream)?;
            Ok(code)
        }
        End::OutputClosed => Ok(128 + sig::SIGPIPE),
        End::Detached => Ok(DETACHED),
        End::Lost => Ok(engine.lost(&started.record)?.map_or(UNKNOWN, |e| e.exit_code)),
    }
}

/// How a stream ended.
enum End {
    Exited(i32),
    /// Nobody reads our stdout any more; the container goes on, as with Docker.
    OutputClosed,
    Detached,
    Lost,
}

fn copy_output(stream: &mut AttachStream) -> Result<End, SessionError> {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    loop {
        let written = match stream.next_event() {
            Ok(AttachEvent::Stdout(bytes)) => out.write_all(bytes).and_then(|()| out.flush()),
            Ok(AttachEvent::Stderr(bytes)) => err.write_all(bytes),
            Ok(AttachEvent::Exit(exit)) => return Ok(End::Exited(exit.exit_code)),
            Ok(AttachEvent::Closed) => return Ok(if stream.is_detached() { End::Detached } else { End::Lost }),
            Err(source) => return Err(SessionError::Io { op: "read from the container", source }),
        };
        match written {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(End::OutputClosed),
            other => other.map_err(failed("write the container's output"))?,
        }
    }
}

/// Copies our stdin to the container until its end or the detach keys. Errors mean that the container has
/// ended, which the other direction reports.
fn send_input(mut stream: AttachStream, tty: bool) {
    let mut keys = DetachKeys::default();
    let mut buffer = [0u8; CHUNK];
    let mut stdin = io::stdin().lock();
    loop {
        let n = match stdin.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let (bytes, detach) = if tty { keys.filter(&buffer[..n]) } else { (buffer[..n].to_vec(), false) };
        if stream.send_stdin(&bytes).is_err() {
            return;
        }
        if detach {
            stream.detach();
            return;
        }
    }
    // The container may have closed the stream already.
    let _ = stream.send_eof();
}

/// Watches input for ctrl-p ctrl-q. A ctrl-p is held back until the next byte decides.
#[derive(Debug, Default)]
struct DetachKeys {
    held: bool,
}

impl DetachKeys {
    /// What to pass on, and whether the keys were complete.
    fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(input.len() + 1);
        for &b in input {
            if self.held && b == DETACH_KEYS[1] {
                return (out, true);
            }
            if std::mem::take(&mut self.held) {
                out.push(DETACH_KEYS[0]);
            }
            if b == DETACH_KEYS[0] {
                self.held = true;
            } else {
                out.push(b);
            }
        }
        (out, false)
    }
}

/// Stays with an exec until it ends; returns its exit code.
pub(crate) fn exec(mut session: ExecSession, interactive: bool, tty: bool) -> Result<i32, SessionError> {
    let raw = RawTerminal::enter(interactive && tty)?;
    forward_signals(session.process().map(Some)?, raw.is_raw())?;
    if let Some(terminal) = session.terminal.take() {
        copy_terminal(&terminal, interactive)?;
    } else {
        copy_pipes(&mut session);
    }
    let code = session.wait();
    drop(raw);
    Ok(code?)
}

fn copy_terminal(terminal: &File, interactive: bool) -> Result<(), SessionError> {
    let clone = || terminal.try_clone().map_err(failed("share the terminal"));
    follow_size(TerminalSize(clone()?))?;
    if interactive {
        let writer = clone()?;
        thread::spawn(move || pump(io::stdin().lock(), writer));
    }
    // A terminal whose other side is closed reads as EIO: the end, not an error.
    pump(terminal, io::stdout());
    Ok(())
}

fn copy_pipes(session: &mut ExecSession) {
    if let Some(stdin) = session.stdin.take() {
        thread::spawn(move || pump(io::stdin().lock(), stdin));
    }
    let (out, err) = (session.stdout.take(), session.stderr.take());
    thread::scope(|scope| {
        scope.spawn(move || err.map(|e| pump(e, io::stderr())));
        out.map(|o| pump(o, io::stdout()));
    });
}

/// Copies until one side ends; a side that is gone is the normal end of a stream.
fn pump(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0u8; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).and_then(|()| to.flush()).is_err() {
            break;
        }
    }
}

/// Passes signals on to the process, from a thread that ends with us.
fn forward_signals(process: Option<ProcessHandle>, raw: bool) -> Result<(), SessionError> {
    let Some(process) = process else { return Ok(()) };
    let which: &[i32] = if raw { &FORWARDED_RAW } else { &FORWARDED };
    let mut signals = Signals::new(which).map_err(failed("catch signals"))?;
    thread::spawn(move || {
        for signal in signals.forever() {
            // It ends before us: its exit is already on the way.
            let _ = process.signal(signal);
        }
    });
    Ok(())
}

/// Something whose terminal size can be set.
trait Resize: Send + 'static {
    fn resize(&mut self, columns: u16, rows: u16);
}

struct StreamSize(AttachStream);

impl Resize for StreamSize {
    fn resize(&mut self, columns: u16, rows: u16) {
        // A stream that is closed has no size.
        let _ = self.0.resize(columns, rows);
    }
}

struct TerminalSize(File);

impl Resize for TerminalSize {
    fn resize(&mut self, columns: u16, rows: u16) {
        let size = termios::Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        // A terminal that is closed has no size.
        let _ = termios::tcsetwinsize(&self.0, size);
    }
}

/// Gives the container our terminal's size now and whenever it changes.
fn follow_size(mut target: impl Resize) -> Result<(), SessionError> {
    if !termios::isatty(io::stdout()) {
        return Ok(());
    }
    let mut signals = Signals::new([sig::SIGWINCH]).map_err(failed("catch signals"))?;
    let mut send = move || {
        if let Ok(size) = termios::tcgetwinsize(io::stdout()) {
            target.resize(size.ws_col, size.ws_row);
        }
    };
    send();
    thread::spawn(move || signals.forever().for_each(|_| send()));
    Ok(())
}

/// Our terminal in raw mode, restored when dropped.
struct RawTerminal {
    saved: Option<Termios>,
}

impl RawTerminal {
    fn enter(wanted: bool) -> Result<Self, SessionError> {
        let stdin = io::stdin();
        if !wanted || !termios::isatty(stdin.as_fd()) {
            return Ok(Self { saved: None });
        }
        let op = failed("set the terminal to raw mode");
        let saved = termios::tcgetattr(stdin.as_fd()).map_err(io::Error::from);
        let set = saved.and_then(|saved| {
            let mut raw = saved.clone();
            raw.make_raw();
            termios::tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
            Ok(saved)
        });
        set.map(|saved| Self { saved: Some(saved) }).map_err(op)
    }

    fn is_raw(&self) -> bool {
        self.saved.is_some()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // The terminal may have been closed; then there is nothing to restore.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, saved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detach_keys_end_the_input_and_are_not_passed_on() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"\x11cd"), (Vec::new(), true));
    }

    #[test]
    fn a_lone_ctrl_p_reaches_the_container() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"\x10x\x10"), (b"\x10x".to_vec(), false));
        assert_eq!(keys.filter(b"y"), (b"\x10y".to_vec(), false));
    }
}
