//! Attached to a container that this command started.
//!
//! Three threads, all started after the workload: the main one writes output, one copies stdin, one turns
//! signals into signals of the container and window changes into resizes.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use onggi_engine::{AttachEvent, AttachStream, Engine, EngineError, Started};
use signal_hook::consts::SIGKILL;

use super::{detach::DetachKeys, forward_input, signals, terminal, terminal::RawTerminal, unbuffered};
use crate::error::CliError;

/// Our half of the connection, shared by the threads that send.
#[derive(Clone)]
struct Sender {
    stream: Arc<Mutex<AttachStream>>,
    /// This command was told to end so often that it leaves the container behind.
    forced: Arc<AtomicBool>,
}

impl Sender {
    fn with(&self, send: impl FnOnce(&mut AttachStream) -> io::Result<()>) -> io::Result<()> {
        send(&mut self.stream.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn resize(&self) {
        if let Some((columns, rows)) = terminal::size() {
            // A broken stream is seen by the thread that reads it.
            let _ = self.with(|s| s.resize(columns, rows));
        }
    }
}

/// Shows the container's output until it ends, and returns its exit code; 0 when the user typed `keys`.
pub(crate) fn run(engine: &Engine, mut started: Started, keys: DetachKeys) -> Result<u8, CliError> {
    let Some(mut stream) = started.attach.take() else { return Ok(0) };
    let request = &started.record.request;
    let raw = (request.tty && request.interactive && io::stdin().is_terminal()).then(RawTerminal::enter).transpose()?;
    let clone = |s: &AttachStream| s.try_clone().map_err(CliError::Stream);
    let sender = Sender { stream: Arc::new(Mutex::new(clone(&stream)?)), forced: Arc::default() };
    if request.tty {
        sender.resize();
    }
    if let Some(process) = started.process.take() {
        let (resizer, forced, leaver) = (sender.clone(), sender.forced.clone(), clone(&stream)?);
        let give_up = move || {
            forced.store(true, Ordering::Release);
            leaver.detach();
        };
        let tty = request.tty;
        let resize = move || {
            if tty {
                resizer.resize();
            }
            tty
        };
        signals::forward(process, resize, give_up)?;
    }
    if request.interactive {
        copy_stdin(sender.clone(), clone(&stream)?, raw.is_some().then_some(keys), request.stdin_once);
    }
    let shown = show(&mut stream);
    drop(raw);
    conclude(engine, &started, &mut stream, shown, sender.forced.load(Ordering::Acquire))
}

/// How the output ended.
enum Shown {
    /// With the container.
    Exit(i32),
    /// The connection closed.
    Closed,
}

fn show(stream: &mut AttachStream) -> Result<Shown, CliError> {
    let (mut out, mut err) = (unbuffered(io::stdout())?, unbuffered(io::stderr())?);
    loop {
        match stream.next_event().map_err(CliError::Stream)? {
            AttachEvent::Stdout(bytes) => out.write_all(bytes)?,
            AttachEvent::Stderr(bytes) => err.write_all(bytes)?,
            AttachEvent::Exit(exit) => return Ok(Shown::Exit(exit.exit_code)),
            AttachEvent::Closed => return Ok(Shown::Closed),
        }
    }
}

fn conclude(
    engine: &Engine,
    started: &Started,
    stream: &mut AttachStream,
    shown: Result<Shown, CliError>,
    forced: bool,
) -> Result<u8, CliError> {
    let record = &started.record;
    let code = |exit_code: i32| u8::try_from(exit_code).unwrap_or(125);
    match shown {
        Ok(Shown::Exit(exit_code)) => {
            engine.finish(record, stream)?;
            Ok(code(exit_code))
        }
        Ok(Shown::Closed) if forced => Err(CliError::LeftRunning { name: record.name.to_string() }),
        Ok(Shown::Closed) if stream.is_detached() => Ok(0),
        Ok(Shown::Closed) => {
            let exit = engine.lost(record)?;
            exit.map(|e| code(e.exit_code)).ok_or_else(|| CliError::MonitorLost { name: record.name.to_string() })
        }
        Err(e) => {
            // Nobody reads the output any more. A container that is thrown away afterwards ends with its
            // reader, as a program in a pipeline does; another one goes on in the background.
            if record.request.remove && started.owner {
                match engine.kill(record.id.as_str(), SIGKILL) {
                    // It has ended meanwhile.
                    Ok(_) | Err(EngineError::WrongState { .. }) => {}
                    Err(k) => tracing::warn!("cannot kill the container: {k}"),
                }
            }
            Err(e)
        }
    }
}

/// With `close`, the end of ours is the end of the container's.
fn copy_stdin(sender: Sender, stream: AttachStream, keys: Option<DetachKeys>, close: bool) {
    thread::spawn(move || {
        let Ok(stdin) = unbuffered(io::stdin()) else { return };
        match forward_input(stdin, keys, |bytes| sender.with(|s| s.send_stdin(bytes))) {
            Ok(true) => stream.detach(),
            Ok(false) if close => {
                // The other side may be gone: the main thread sees it too.
                let _ = sender.with(AttachStream::send_eof);
            }
            Ok(false) => {}
            Err(e) => tracing::debug!("stdin is no longer copied: {e}"),
        }
    });
}
