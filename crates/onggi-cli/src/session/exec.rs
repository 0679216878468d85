//! Attached to a process that `exec` started.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    sync::mpsc,
    thread,
    time::Duration,
};

use onggi_engine::ExecSession;

use super::{copy, signals, terminal, terminal::RawTerminal, unbuffered};
use crate::error::CliError;

/// How long output is awaited after the process has ended: a grandchild may hold the pipe for ever.
const DRAIN: Duration = Duration::from_secs(1);

/// Exit code after SIGINT, in a shell's convention.
const EXIT_INTERRUPTED: i32 = 130;

/// Copies output and input until the process ends, and returns its exit code.
pub(crate) fn run(mut session: ExecSession, interactive: bool) -> Result<u8, CliError> {
    let raw = (session.terminal.is_some() && interactive && io::stdin().is_terminal())
        .then(RawTerminal::enter)
        .transpose()?;
    let terminal = session.terminal.as_ref().map(File::try_clone).transpose()?;
    follow(&session, terminal)?;
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
        let from = unbuffered(io::stdin())?;
        // It ends with our stdin, or with this process: nobody waits for it.
        thread::spawn(move || copy(from, to));
    }
    drop(done);
    let code = session.wait();
    let written = drain(&finished, outputs);
    drop(raw);
    let code = code?;
    written?;
    Ok(u8::try_from(code).unwrap_or(125))
}

fn copy_output(from: File, to: File, done: &mpsc::Sender<io::Result<()>>) -> usize {
    let done = done.clone();
    // The receiver may have stopped waiting.
    thread::spawn(move || drop(done.send(copy(from, to))));
    1
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
fn follow(session: &ExecSession, terminal: Option<File>) -> Result<(), CliError> {
    let resize = move || {
        let known = terminal.as_ref().zip(terminal::size());
        if let Some((terminal, (columns, rows))) = known {
            // A terminal whose process is gone has no size.
            let _ = onggi_sys::pty::set_size(terminal.as_fd(), columns, rows);
        }
    };
    resize();
    // Without a record of its own the process goes on by itself, as with Docker.
    signals::forward(session.process()?, resize, || std::process::exit(EXIT_INTERRUPTED))
}
