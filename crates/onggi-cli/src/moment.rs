//! Points in time as people give them to `--since` and `--until`, in Docker's forms.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use onggi_spec::ParseError;

/// Units of Go's durations, in nanoseconds.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9), ("d", 86_400e9)];

/// A date, a date with a time (local unless it names a zone), a span before `now`, or Unix seconds.
///
/// # Errors
/// The text is none of these.
pub(crate) fn parse_moment(text: &str, now: Timestamp) -> Result<Timestamp, ParseError> {
    let moment = unix(text).or_else(|| before(text, now)).or_else(|| text.parse().ok()).or_else(|| local(text));
    moment.ok_or_else(|| {
        let expected = "expected 2026-01-02T15:04:05Z, 2026-01-02T15:04 or 2026-01-02 (local), a span such as 1h30m, or Unix seconds";
        ParseError::new("time", text, expected)
    })
}

/// `1767366245` or `1767366245.25`.
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanoseconds).ok()
}

/// `1h30m`, `1.5h`, `300ms`: so long before now.
fn before(text: &str, now: Timestamp) -> Option<Timestamp> {
    let mut rest = text;
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let number_ends = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_ends);
        let unit_ends = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_ends);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanoseconds += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    let span = SignedDuration::try_from_secs_f64(nanoseconds / 1e9).ok()?;
    (!text.is_empty()).then(|| now.checked_sub(span).ok()).flatten()
}

/// Without a zone it is the time of this machine's clock on the wall.
fn local(text: &str) -> Option<Timestamp> {
    let date_time = text.parse::<civil::DateTime>();
    let date_time = date_time.or_else(|_| text.parse::<civil::Date>().map(|date| date.at(0, 0, 0, 0))).ok()?;
    Some(date_time.to_zoned(TimeZone::system()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<String> {
        let now = "2026-01-02T15:04:05Z".parse().expect("a time");
        parse_moment(text, now).ok().map(|moment| moment.to_string())
    }

    #[test]
    fn every_form_of_docker_is_understood() {
        assert_eq!(at("2026-01-01T00:00:00Z").as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(at("2026-01-01T02:00:00.5+02:00").as_deref(), Some("2026-01-01T00:00:00.5Z"));
        assert_eq!(at("1767225600").as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(at("1767225600.000000001").as_deref(), Some("2026-01-01T00:00:00.000000001Z"));
        assert_eq!(at("1h30m").as_deref(), Some("2026-01-02T13:34:05Z"));
        assert_eq!(at("1.5h").as_deref(), Some("2026-01-02T13:34:05Z"));
        assert_eq!(at("300ms").as_deref(), Some("2026-01-02T15:04:04.7Z"));
        let zone = TimeZone::system();
        let midnight = civil::date(2026, 1, 1).at(0, 0, 0, 0).to_zoned(zone).expect("a zone has midnights");
        assert_eq!(at("2026-01-01"), Some(midnight.timestamp().to_string()));
        assert_eq!(at("2026-01-01T00:00"), Some(midnight.timestamp().to_string()));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "yesterday", "1x", "h", "1h2", "-", "2026-13-01", "1.2.3s", "99999999999999999999"] {
            assert_eq!(at(bad), None, "{bad:?}");
        }
    }
}
