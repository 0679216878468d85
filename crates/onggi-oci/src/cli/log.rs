//! Output and errors: stdout for results, stderr and `--log` for failures.

use std::{
    fs::OpenOptions,
    io::Write,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use super::CliError;

/// Where errors go besides stderr.
#[derive(Debug, Default)]
pub(super) struct Log {
    path: Option<PathBuf>,
    json: bool,
    quiet: bool,
}

impl Log {
    pub(super) fn new(path: Option<PathBuf>, format: &str, quiet: bool) -> Result<Self, CliError> {
        match format {
            "text" => Ok(Self { path, json: false, quiet }),
            "json" => Ok(Self { path, json: true, quiet }),
            other => Err(CliError::Usage(format!("--log-format {other:?} is neither text nor json"))),
        }
    }

    /// Reports a failure.
    pub(super) fn error(&self, message: &str, hint: Option<&str>) {
        self.write("error", message, hint);
        if self.quiet {
            return;
        }
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "onggi-oci: {message}");
        if let Some(hint) = hint {
            let _ = writeln!(err, "hint: {hint}");
        }
    }

    /// Notes what was kept as it was. Engines that read `--log` get it there, everybody else on stderr.
    pub(super) fn notes(&self, notes: &[String]) {
        for note in notes {
            if self.path.is_some() {
                self.write("warning", note, None);
            } else {
                let _ = writeln!(std::io::stderr().lock(), "onggi-oci: note: {note}");
            }
        }
    }

    fn write(&self, level: &str, message: &str, hint: Option<&str>) {
        let Some(path) = &self.path else { return };
        // The failure itself goes to stderr anyway; a log that cannot be written must not hide it.
        let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) else { return };
        let time = rfc3339(SystemTime::now());
        let line = if self.json {
            let mut entry = serde_json::json!({ "level": level, "msg": message, "time": time });
            if let Some(hint) = hint {
                entry["hint"] = hint.into();
            }
            format!("{entry}\n")
        } else {
            format!("time=\"{time}\" level={level} msg={message:?}\n")
        };
        let _ = file.write_all(line.as_bytes());
    }
}

/// Writes a result to stdout. A closed pipe is the reader's decision, not a failure.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// `2026-11-22T03:04:05Z`.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
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
    }
}
