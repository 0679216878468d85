//! `ONGGI_TRACE`: operations with their times, as they are done, on the standard error that the program was started with.

use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use onggi_sys::{
    spawn,
    trace::{self, Event, Format},
};

static FORMAT: AtomicU8 = AtomicU8::new(0);
static FD: AtomicI32 = AtomicI32::new(-1);

/// Installs the listener when the variable asks for one. The descriptor is a copy that closes on exec: the container's
/// own standard error is another one, and its program never gets this.
pub(crate) fn install() {
    let Some(format) = std::env::var("ONGGI_TRACE").ok().as_deref().and_then(Format::of) else { return };
    let Ok(copy) = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 100) else { return };
    let fd = spawn::leak(copy);
    FD.store(fd, Ordering::Relaxed);
    FORMAT.store(u8::from(format == Format::Json), Ordering::Relaxed);
    trace::keep(fd);
    trace::install(listen);
}

fn listen(event: &Event<'_>) {
    let format = if FORMAT.load(Ordering::Relaxed) == 1 { Format::Json } else { Format::Words };
    let line = format.line(event);
    onggi_sys::fs::write_raw(FD.load(Ordering::Relaxed), line.as_bytes());
}
