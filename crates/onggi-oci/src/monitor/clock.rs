//! Wall-clock time as RFC 3339 text with nanoseconds, as Docker writes it: UTC, trailing zeroes of the
//! fraction cut. Without a library, because the monitor stays small, and with the text of the current
//! second kept, because a busy log asks thousands of times per second.

use std::time::{SystemTime, UNIX_EPOCH};

/// Longest text: `2026-11-22T03:04:05.123456789Z`.
pub(super) const MAX_TEXT: usize = 30;

const SECONDS: usize = "2026-11-22T03:04:05".len();

/// Nanoseconds since 1970; a clock before that reads as 0.
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Formats times; remembers the last second.
#[derive(Debug)]
pub(super) struct Clock {
    second: i64,
    text: [u8; MAX_TEXT],
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { second: -1, text: [b'0'; MAX_TEXT] }
    }

    /// `unix_ns` (0 or more) as text.
    pub(super) fn format(&mut self, unix_ns: i64) -> &[u8] {
        let unix_ns = unix_ns.max(0);
        let second = unix_ns / 1_000_000_000;
        if second != self.second {
            self.second = second;
            write_seconds(&mut self.text, second);
        }
        let end = write_fraction(&mut self.text, unix_ns % 1_000_000_000);
        &self.text[..end]
    }
}

fn write_seconds(text: &mut [u8; MAX_TEXT], second: i64) {
    let (year, month, day) = civil_from_days(second / 86_400);
    let of_day = second % 86_400;
    digits(&mut text[0..4], year);
    text[4] = b'-';
    digits(&mut text[5..7], month);
    text[7] = b'-';
    digits(&mut text[8..10], day);
    text[10] = b'T';
    digits(&mut text[11..13], of_day / 3600);
    text[13] = b':';
    digits(&mut text[14..16], of_day / 60 % 60);
    text[16] = b':';
    digits(&mut text[17..19], of_day % 60);
}

/// Writes `.123456789Z` without trailing zeroes; returns the end of the text.
fn write_fraction(text: &mut [u8; MAX_TEXT], nanos: i64) -> usize {
    let mut end = SECONDS;
    if nanos != 0 {
        text[SECONDS] = b'.';
        digits(&mut text[SECONDS + 1..SECONDS + 10], nanos);
        end = SECONDS + 10;
        while text[end - 1] == b'0' {
            end -= 1;
        }
    }
    text[end] = b'Z';
    end + 1
}

fn digits(out: &mut [u8], mut value: i64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Days since 1970-01-01 to year, month, day in the Gregorian calendar. Years are counted from March, so
/// that the leap day is the last day of its year.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const DAYS_TO_0000_03_01: i64 = 719_468;
    const DAYS_PER_400_YEARS: i64 = 146_097;
    let days = days + DAYS_TO_0000_03_01;
    let era = days.div_euclid(DAYS_PER_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_PER_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ns: i64) -> String {
        String::from_utf8(Clock::new().format(ns).to_vec()).unwrap()
    }

    #[test]
    fn times_are_written_as_docker_writes_them() {
        for (ns, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (951_782_400_500_000_000, "2000-02-29T00:00:00.5Z"),
            (1_709_251_199_120_000_000, "2024-02-29T23:59:59.12Z"),
            (1_709_251_200_000_000_000, "2024-03-01T00:00:00Z"),
            (4_107_542_399_999_999_999, "2100-02-28T23:59:59.999999999Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00Z"),
            (-5, "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(text(ns), expected, "{ns}");
        }
    }

    #[test]
    fn a_clock_that_is_reused_and_steps_back_stays_right() {
        let mut clock = Clock::new();
        for second in [5, 5, 4, 86_400, 86_399] {
            let fresh = text(second * 1_000_000_000 + 7);
            assert_eq!(clock.format(second * 1_000_000_000 + 7), fresh.as_bytes());
        }
    }
}
