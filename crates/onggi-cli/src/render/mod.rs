//! From values to text, as Docker prints it.

pub(crate) mod format;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod time;
pub(crate) mod users;

use std::io::{self, Write};

/// Writes to stdout as a whole.
pub(crate) fn stdout(text: &str) -> io::Result<()> {
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
