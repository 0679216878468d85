//! From values to text, as Docker prints it.

mod blocks;
pub(crate) mod format;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod time;
pub(crate) mod users;

use std::io::{self, Write};

/// Fails where stdout was closed when we were started: what is written then would silently go nowhere.
pub(crate) fn readable() -> io::Result<()> {
    match onggi_sys::begin::was_closed(1) {
        true => Err(rustix::io::Errno::BADF.into()),
        false => Ok(()),
    }
}

/// Writes to stdout as a whole.
pub(crate) fn stdout(text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    readable()?;
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes one line to stdout.
pub(crate) fn line(text: &str) -> io::Result<()> {
    stdout(&format!("{text}\n"))
}

/// Writes notes for the user to stderr.
pub(crate) fn notes(notes: &[String]) -> io::Result<()> {
    notes.iter().try_for_each(|note| io::stderr().write_all(format!("onggi: note: {note}\n").as_bytes()))
}
