//! Times as people say them, in Docker's words (go-units).

use std::time::{Duration, SystemTime};

use jiff::{Timestamp, tz::TimeZone};

const NANOSECONDS: i64 = 1_000_000_000;

/// Now, unix time in nanoseconds.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

/// `2 minutes`, from nanoseconds; a negative span (a clock set back) counts as none.
pub(crate) fn human(nanoseconds: i64) -> String {
    let seconds = nanoseconds.max(0) / NANOSECONDS;
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, _, _) => "Less than a second".to_owned(),
        (1, _, _) => "1 second".to_owned(),
        (s, 0, _) => format!("{s} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, m, _) if m < 60 => format!("{m} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, h) if h < 48 => format!("{h} hours"),
        (_, _, h) if h < 24 * 7 * 2 => format!("{} days", h / 24),
        (_, _, h) if h < 24 * 30 * 2 => format!("{} weeks", h / 24 / 7),
        (_, _, h) if h < 24 * 365 * 2 => format!("{} months", h / 24 / 30),
        (_, _, h) => format!("{} years", h / 24 / 365),
    }
}

/// `2 minutes ago`; `N/A` for a time that is not known.
pub(crate) fn ago(now: i64, then: i64) -> String {
    if then <= 0 {
        return "N/A".to_owned();
    }
    format!("{} ago", human(now.saturating_sub(then)))
}

/// `2026-11-22 03:04:05 +0000 UTC`, in the local time zone.
pub(crate) fn local(unix_ns: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// `2026-11-22T03:04:05Z`; `N/A` for a time that is not known.
pub(crate) fn rfc3339(unix_ns: i64) -> String {
    if unix_ns <= 0 {
        return "N/A".to_owned();
    }
    let time = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_as_docker_says_them() {
        let (minute, hour, day) = (60, 3600, 86_400);
        for (seconds, want) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (minute, "About a minute"),
            (119, "About a minute"),
            (2 * minute, "2 minutes"),
            (59 * minute, "59 minutes"),
            (hour, "About an hour"),
            (89 * minute, "About an hour"),
            (90 * minute, "2 hours"),
            (47 * hour, "47 hours"),
            (2 * day, "2 days"),
            (13 * day, "13 days"),
            (14 * day, "2 weeks"),
            (60 * day, "2 months"),
            (800 * day, "2 years"),
        ] {
            assert_eq!(human(seconds * NANOSECONDS), want, "{seconds}");
        }
        assert_eq!(ago(5 * NANOSECONDS, 0), "N/A");
        assert_eq!(ago(5 * NANOSECONDS, 2 * NANOSECONDS), "3 seconds ago");
    }
}
