//! Output and errors: stdout for results, stderr and `--log` for failures, in the lines of Go's logrus, which
//! containerd, dockerd, conmon and scripts parse.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{CliError, args::Args};

/// Where errors go besides stderr.
#[derive(Debug, Default)]
pub(super) struct Log {
    file: Option<File>,
    json: bool,
    quiet: bool,
    debug: bool,
}

impl Log {
    /// As the global flags say.
    pub(super) fn open(args: &Args) -> Result<Self, CliError> {
        let json = match args.text("log-format").unwrap_or("text") {
            "text" | "" => false,
            "json" => true,
            other => return Err(CliError::Usage(format!("invalid log-format: {other}"))),
        };
        let mut log = Self {
            file: None,
            json,
            quiet: args.is("quiet"),
            debug: args.is("debug") || args.text("log-level") == Some("debug"),
        };
        if let Some(path) = args.path("log") {
            // `file:` is how crun's callers write it.
            let path = path.to_str().and_then(|p| p.strip_prefix("file:")).map(Into::into).unwrap_or(path);
            log.file = Some(open(&path)?);
        }
        Ok(log)
    }

    /// Reports a failure.
    pub(super) fn error(&self, message: &str, hint: Option<&str>) {
        let mut err = std::io::stderr().lock();
        if self.file.is_some() {
            self.write("error", message, hint);
        } else if !self.quiet && (self.json || !err.is_terminal()) {
            let _ = err.write_all(self.line("error", message, hint).as_bytes());
            return;
        }
        if self.quiet {
            return;
        }
        let _ = writeln!(err, "{message}");
        if let Some(hint) = hint {
            let _ = writeln!(err, "hint: {hint}");
        }
    }

    /// What does not end the verb.
    pub(super) fn warning(&self, message: &str) {
        if self.file.is_some() {
            self.write("warning", message, None);
        } else {
            let _ = std::io::stderr().lock().write_all(self.line("warning", message, None).as_bytes());
        }
    }

    /// Notes what was kept as it was. Engines that read `--log` get it there, everybody else on stderr.
    pub(super) fn notes(&self, notes: &[String]) {
        notes.iter().for_each(|note| self.warning(note));
    }

    /// `--debug` was given.
    pub(super) fn debugs(&self) -> bool {
        self.debug
    }

    /// For `--debug`. The words are those that people look for in runc's output.
    pub(super) fn debug(&self, message: &str) {
        if !self.debug {
            return;
        }
        if self.file.is_some() {
            self.write("debug", message, None);
        } else if !self.quiet {
            let _ = std::io::stderr().lock().write_all(self.line("debug", message, None).as_bytes());
        }
    }

    fn write(&self, level: &str, message: &str, hint: Option<&str>) {
        let Some(mut file) = self.file.as_ref() else { return };
        // One write: engines read while others append. A log that cannot be written must not hide the failure.
        let _ = file.write_all(self.line(level, message, hint).as_bytes());
    }

    fn line(&self, level: &str, message: &str, hint: Option<&str>) -> String {
        let time = rfc3339(SystemTime::now());
        if self.json {
            let mut entry = serde_json::json!({ "level": level, "msg": message, "time": time });
            if let Some(hint) = hint {
                entry["hint"] = hint.into();
            }
            return format!("{entry}\n");
        }
        let mut line = format!("time=\"{time}\" level={level} msg={}", quote(message));
        if let Some(hint) = hint {
            line += " hint=";
            line += &quote(hint);
        }
        line + "\n"
    }
}

/// Opened at once, as runc does: a log that cannot be opened is an error before anything is done.
fn open(path: &Path) -> Result<File, CliError> {
    let open = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
    open.map_err(|source| CliError::File { what: "open log", path: path.to_owned(), source })
}

/// As logrus does it: bare where no character needs quotes, else a Go string.
fn quote(text: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b"-._/@^+".contains(&b);
    if !text.is_empty() && text.bytes().all(bare) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

/// Writes a result to stdout. A closed pipe is the reader's decision, not a failure.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// `2026-11-22T03:04:05Z`.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    date(since.as_secs()) + "Z"
}

/// `2026-11-22T03:04:05.123456789Z`, without trailing zeros (Go's RFC3339Nano).
pub(super) fn rfc3339_nano(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = format!(".{:09}", since.subsec_nanos());
    date(since.as_secs()) + fraction.trim_end_matches('0').trim_end_matches('.') + "Z"
}

fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Days since 1970 to a date of the proleptic Gregorian calendar: whole 400-year cycles, counted from a
/// March so that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * of_year + 2) / 153;
    let day = of_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_right_around_leap_days() {
        let at = |s| rfc3339(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_316_645), "2026-11-22T03:04:05Z");
        let nano = |n| rfc3339_nano(UNIX_EPOCH + Duration::from_nanos(n));
        assert_eq!(nano(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(nano(1_000_000_000), "1970-01-01T00:00:01Z");
    }

    #[test]
    fn a_text_line_is_what_logrus_writes() {
        let log = Log::default();
        let line = log.line("error", "exec: \"x\":\nno", Some("a b"));
        let (time, rest) = line.split_once("Z\" ").unwrap();
        assert!(time.starts_with("time=\"20"));
        assert_eq!(rest, "level=error msg=\"exec: \\\"x\\\":\\nno\" hint=\"a b\"\n");
        assert_eq!((quote("plain-1.2/x@y"), quote("")), ("plain-1.2/x@y".to_owned(), "\"\"".to_owned()));
    }
}
