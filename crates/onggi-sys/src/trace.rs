//! Operations with their times as they are done, for whoever sets `ONGGI_TRACE`.
//!
//! Libraries only tell; the programs install who listens, so nothing here prints. Off (nobody has installed anything) it
//! costs one relaxed load per operation and no text is made. Times are those of CLOCK_MONOTONIC, so that what several
//! processes tell can be put into one order.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// One operation that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'e> {
    /// `engine`, `network`, `sandbox`, `storage`, `primitives`.
    pub part: &'static str,
    /// In words, as `--explain` has it.
    pub what: &'e str,
    /// When it began, since boot.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// It failed.
    pub failed: bool,
}

/// Receives events, from any thread, also in a forked child.
pub type Listener = fn(&Event<'_>);

/// The descriptor that the listener writes to; -1 for none.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
static ON: AtomicBool = AtomicBool::new(false);
static LISTENER: OnceLock<Listener> = OnceLock::new();
static LINES: OnceLock<fn(&str)> = OnceLock::new();

/// Tells every operation to `listener` from here on. The first one stays.
pub fn install(listener: Listener) {
    if LISTENER.set(listener).is_ok() {
        ON.store(true, Ordering::Relaxed);
    }
}

/// The listener writes to this descriptor, which whoever closes all others must keep.
pub fn keep(descriptor: i32) {
    DESCRIPTOR.store(descriptor, Ordering::Relaxed);
}

/// What [`keep`] was told.
pub fn descriptor() -> Option<i32> {
    Some(DESCRIPTOR.load(Ordering::Relaxed)).filter(|fd| *fd >= 0)
}

/// Another process of ours wrote this line.
pub fn is_line(line: &str) -> bool {
    line.starts_with(PREFIX) || line.starts_with(JSON_PREFIX)
}

/// Gives a line of another process to whoever listens here.
pub fn pass_on(line: &str) {
    if let Some(listener) = LINES.get() {
        listener(line);
    }
}

/// Who gets lines of other processes.
pub fn install_lines(listener: fn(&str)) {
    // The first one stays.
    let _ = LINES.set(listener);
}

/// Somebody listens.
pub fn on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Does `work`, and tells how long it took.
pub fn step<T, E>(
    part: &'static str,
    what: impl FnOnce() -> String,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    if !on() {
        return work();
    }
    let (at, what) = (now(), what());
    let result = work();
    tell(&Event { part, what: &what, at, took: now().saturating_sub(at), failed: result.is_err() });
    result
}

/// Tells of something that takes no time, or whose end nobody sees (exec).
pub fn point(part: &'static str, what: impl FnOnce() -> String) {
    if on() {
        tell(&Event { part, what: &what(), at: now(), took: Duration::ZERO, failed: false });
    }
}

fn tell(event: &Event<'_>) {
    if let Some(listener) = LISTENER.get() {
        listener(event);
    }
}

fn now() -> Duration {
    let t = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `onggi-trace 12.345678 +0.000120 sandbox: mount proc on /proc`
    Words,
    /// One JSON object a line.
    Json,
}

/// How lines of [`Format::Words`] begin.
pub const PREFIX: &str = "onggi-trace ";
/// How lines of [`Format::Json`] begin.
pub const JSON_PREFIX: &str = "{\"onggi_trace\":";

impl Format {
    /// The value of `ONGGI_TRACE`: `json`; anything else but nothing, `0`, `no` and `off` is words.
    pub fn of(value: &str) -> Option<Self> {
        match value {
            "" | "0" | "no" | "off" | "false" => None,
            "json" => Some(Self::Json),
            _ => Some(Self::Words),
        }
    }

    /// The value that gives this one.
    pub fn value(self) -> &'static str {
        match self {
            Self::Words => "1",
            Self::Json => "json",
        }
    }

    /// The line of an event, with its end.
    pub fn line(self, e: &Event<'_>) -> String {
        let (at, took) = (e.at.as_secs_f64(), e.took.as_secs_f64());
        let failed = if e.failed { " (failed)" } else { "" };
        match self {
            Self::Words => {
                let what: String = e.what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                format!("{PREFIX}{at:.6} +{took:.6} {}: {what}{failed}\n", e.part)
            }
            Self::Json => format!(
                "{JSON_PREFIX}{:?},\"at\":{at:.6},\"took\":{took:.6},\"failed\":{},\"what\":{}}}\n",
                e.part,
                e.failed,
                json_text(e.what)
            ),
        }
    }
}

/// A JSON string (RFC 8259): without a library, because the small programs have this too.
fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_everything_and_nothing_that_breaks_them() {
        let event = Event {
            part: "sandbox",
            what: "mount \"x\"\n",
            at: Duration::from_millis(1500),
            took: Duration::from_micros(120),
            failed: true,
        };
        assert_eq!(Format::Words.line(&event), "onggi-trace 1.500000 +0.000120 sandbox: mount \"x\"  (failed)\n");
        assert_eq!(
            Format::Json.line(&event),
            "{\"onggi_trace\":\"sandbox\",\"at\":1.500000,\"took\":0.000120,\"failed\":true,\"what\":\"mount \\\"x\\\"\\u000a\"}\n"
        );
    }

    #[test]
    fn the_variable_is_read_as_people_write_it() {
        let of = |v| Format::of(v);
        assert_eq!([of(""), of("0"), of("off")], [None; 3]);
        assert_eq!((of("1"), of("words"), of("json")), (Some(Format::Words), Some(Format::Words), Some(Format::Json)));
    }

    #[test]
    fn what_nobody_listens_to_is_done_and_never_put_into_words() {
        let done: Result<i32, ()> = step("engine", || unreachable!("nobody listens"), || Ok(7));
        assert_eq!(done, Ok(7));
        point("engine", || unreachable!("nobody listens"));
    }
}
