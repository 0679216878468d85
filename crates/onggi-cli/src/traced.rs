//! `ONGGI_TRACE=1` (or `json`): operations with their times on standard error, as they are done.

use std::{io::Write as _, sync::OnceLock};

use onggi_sys::trace::{self, Event, Format};

static FORMAT: OnceLock<Format> = OnceLock::new();

/// What the variable asks for.
pub(crate) fn format() -> Option<Format> {
    FORMAT.get().copied()
}

/// Installs the listener when the variable asks for one.
pub(crate) fn install() {
    let Some(format) = std::env::var("ONGGI_TRACE").ok().as_deref().and_then(Format::of) else { return };
    if FORMAT.set(format).is_ok() {
        trace::install(listen);
        trace::install_lines(line);
    }
}

fn listen(event: &Event<'_>) {
    if let Some(format) = format() {
        write(&format.line(event));
    }
}

fn line(text: &str) {
    write(&format!("{text}\n"));
}

/// One write, so that lines of several threads stay whole. Nobody is left to be told when it fails.
fn write(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
