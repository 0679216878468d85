//! Being attached to a running process: its output to ours, our stdin, signals and terminal size to it.

pub(crate) mod container;
pub(crate) mod detach;
pub(crate) mod exec;
mod signals;
pub(crate) mod terminal;

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::AsFd,
};

/// Bytes that are copied at a time.
const BUFFER: usize = 64 * 1024;

/// stdin, stdout or stderr without std's line buffering.
fn unbuffered(stream: impl AsFd) -> io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

/// Copies until the end. A terminal's master reports its end as EIO.
pub(crate) fn copy(mut from: File, mut to: impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Sends what is read until its end (false) or until the detach keys, where input is typed (true).
fn forward_input(
    mut stdin: File,
    mut keys: Option<detach::DetachKeys>,
    mut send: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = match stdin.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let Some(keys) = &mut keys else {
            send(&buffer[..n])?;
            continue;
        };
        let typed = keys.feed(&buffer[..n]);
        send(&typed.bytes)?;
        if typed.detach {
            return Ok(true);
        }
    }
}
