//! Attached to a process that `exec` started.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    sync::mpsc,
    thread,
    time::Duration,
};

use onggi_engine::{EngineError, ExecSession};
use onggi_sys::{
    SysError,
    spawn::{Program, Spawn},
};

use super::{copy, detach::DetachKeys, forward_input, signals, terminal, terminal::RawTerminal, unbuffered};
use crate::error::CliError;

/// How long output is awaited after the process has ended: a grandchild may hold the pipe for ever.
const DRAIN: Duration = Duration::from_secs(1);

/// Exit code after SIGINT, in a shell's convention.
const EXIT_INTERRUPTED: u8 = 130;

/// Why this program ends.
enum Ended {
    /// The process has, or could not begin.
    Exit(Result<i32, EngineError>),
    /// The detach keys were typed.
    Detached,
    /// The process does not end although it was asked to.
    GaveUp,
}

/// Copies output and input until the process ends, and returns its exit code; 0 when the user typed `keys`.
pub(crate) fn run(mut session: ExecSession, interactive: bool, keys: DetachKeys) -> Result<u8, CliError> {
    let raw = (session.terminal.is_some() && interactive && io::stdin().is_terminal())
        .then(RawTerminal::enter)
        .transpose()?;
    let kept = session.terminal.as_ref().map(File::try_clone).transpose()?;
    let (tell, ended) = mpsc::channel();
    follow(&session, tell.clone())?;
    let (done, finished) = mpsc::channel();
    let mut outputs = 0;
    let mut input = session.stdin.take();
    if let Some(terminal) = session.terminal.take() {
        outputs += copy_output(terminal.try_clone()?, unbuffered(io::stdout())?, &done);
        input = interactive.then_some(terminal);
    }
    for (from, to) in
        [(session.stdout.take(), unbuffered(io::stdout())?), (session.stderr.take(), unbuffered(io::stderr())?)]
    {
        outputs += from.map_or(0, |from| copy_output(from, to, &done));
    }
    if let Some(to) = input {
        copy_input(to, raw.is_some().then_some(keys), tell.clone())?;
    }
    drop(done);
    thread::spawn(move || tell.send(Ended::Exit(session.wait())));
    match ended.recv() {
        Ok(Ended::Exit(code)) => {
            let written = drain(&finished, outputs);
            drop(raw);
            let code = code?;
            written?;
            Ok(u8::try_from(code).unwrap_or(125))
        }
        Ok(Ended::Detached) => {
            kept.map_or(Ok(()), hold)?;
            Ok(0)
        }
        // Without a record of its own the process goes on by itself, as with Docker.
        Ok(Ended::GaveUp) | Err(_) => Ok(EXIT_INTERRUPTED),
    }
}

fn copy_output(from: File, to: File, done: &mpsc::Sender<io::Result<()>>) -> usize {
    let done = done.clone();
    // The receiver may have stopped waiting.
    thread::spawn(move || drop(done.send(copy(from, to))));
    1
}

/// It ends with our stdin, or with this process: nobody waits for it.
fn copy_input(mut to: File, keys: Option<DetachKeys>, tell: mpsc::Sender<Ended>) -> io::Result<()> {
    let from = unbuffered(io::stdin())?;
    thread::spawn(move || match forward_input(from, keys, |bytes| to.write_all(bytes)) {
        Ok(true) => drop(tell.send(Ended::Detached)),
        Ok(false) => {}
        Err(e) => tracing::debug!("stdin is no longer copied: {e}"),
    });
    Ok(())
}

/// A process whose terminal nobody holds is hung up, and one whose output nobody reads stands still: this program again
/// does both, in the background, until the process ends.
fn hold(terminal: File) -> Result<(), CliError> {
    let failed =
        |e: SysError| CliError::Execute { program: "what holds the terminal".to_owned(), source: e.errno.into() };
    let holder = Spawn::new(Program::Path(c"/proc/self/exe"), &["onggi", "__hold"], &[]).map_err(failed)?;
    // The user's own terminal may go.
    holder.fd(terminal.as_fd(), 0).setsid().start().map(drop).map_err(failed)
}

/// Waits for the output threads, together at most [`DRAIN`]; the first error is returned.
fn drain(finished: &mpsc::Receiver<io::Result<()>>, outputs: usize) -> io::Result<()> {
    let mut result = Ok(());
    for _ in 0..outputs {
        match finished.recv_timeout(DRAIN) {
            Ok(one) => result = result.and(one),
            Err(_) => return result,
        }
    }
    result
}

/// Signals go to the process; the terminal gets our size, now and whenever it changes.
fn follow(session: &ExecSession, tell: mpsc::Sender<Ended>) -> Result<(), CliError> {
    let terminal = session.terminal.as_ref().map(File::try_clone).transpose()?;
    let resize = move || {
        let known = terminal.as_ref().zip(terminal::size());
        if let Some((terminal, (columns, rows))) = known {
            // A terminal whose process is gone has no size.
            let _ = onggi_sys::pty::set_size(terminal.as_fd(), columns, rows);
        }
        terminal.is_some()
    };
    resize();
    signals::forward(session.process()?, resize, move || drop(tell.send(Ended::GaveUp)))
}
