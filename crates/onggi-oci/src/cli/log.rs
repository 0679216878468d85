//! `--log FILE --log-format text|json`: errors in the form that engines parse.
//!
//! containerd, dockerd and Podman read the last JSON line with `"level":"error"` and show its `msg`.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};



/// Where errors go beside stderr.
#[derive(Debug, Default)]
pub(crate) struct Log {
    path: Option<std::path::PathBuf>,
    json: bool,
}

impl Log {
    /// From the values of the two options.
    ///
    /// # Errors
    /// The format is neither `text` nor `json`.
    pub(crate) fn new(path: Option<&OsStr>, format: Option<&str>) -> Result<Self, String> {
        let json = match format {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => return Err(format!("invalid log-format {other:?}: expected text or json")),
        };
        Ok(Self { path: path.filter(|p| !p.is_empty()).map(Into::into), json })
    }

    /// Writes one error. A log that cannot be written must not hide the error, which stderr has too.
    pub(crate) fn error(&self, message: &str) {
        let Some(path) = &self.path else { return };
        let time = timestamp();
        let line = if self.json {
            format!("{}\n", serde_json::json!({ "level": "error", "msg": message, "time": time }))
        } else {
            format!("time={time:?} level=error msg={message:?}\n")
        };
        if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

fn timestamp() -> String {
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX)))
}

/// RFC 3339 in UTC, from seconds since 1970.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (y, m, d) = civil(days);
    format!("{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Year, month and day of a day since 1970-01-01, by counting 400-year eras that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_778), (2026, 11, 21));
    }

    #[test]
    fn an_unknown_format_is_refused() {
        assert!(Log::new(None, Some("xml")).is_err());
    }
}
