//! When a request is repeated, and after how long. Decisions are pure; [`run`] does the waiting.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    thread,
    time::Duration,
};

use onggi_spec::progress::{Progress, ProgressEvent};

use crate::error::{FailureKind, ImageError};

/// How often and how long to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// First wait; doubled each time.
    pub base: Duration,
    /// Longest single wait; a registry that asks for more is given up on.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, base: Duration::from_millis(250), longest: Duration::from_secs(30) }
    }
}

/// Whether a failed attempt is worth repeating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// It would fail the same way.
    Never,
    /// It seldom helps, and the user waits: once more.
    Once,
    /// Somebody who was there a moment ago: at most twice more.
    Few,
    /// Likely transient.
    Often,
    /// The registry said when.
    After(Duration),
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Box<ImageError>,
    pub(crate) again: Again,
}

impl Failure {
    pub(crate) fn new(error: ImageError, again: Again) -> Self {
        Self { error: Box::new(error), again }
    }
}

impl<E: Into<ImageError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.into(), Again::Never)
    }
}

/// Attempts when a registry that has answered before cannot be reached: enough for one that restarts.
const FEW_ATTEMPTS: u32 = 3;
/// Attempts when time ran out before there was any answer: each takes as long as [`Timeouts`](crate::Timeouts) say.
const UNANSWERED_ATTEMPTS: u32 = 2;

impl RetryPolicy {
    /// The wait before attempt `done + 1`; `None` to give up. `jitter` is any number.
    pub(crate) fn wait(&self, done: u32, again: Again, jitter: u64) -> Option<Duration> {
        let allowed = match again {
            Again::Never => 0,
            Again::Once => self.attempts.min(UNANSWERED_ATTEMPTS),
            Again::Few => self.attempts.min(FEW_ATTEMPTS),
            Again::Often | Again::After(_) => self.attempts,
        };
        if done >= allowed {
            return None;
        }
        if let Again::After(asked) = again {
            return (asked <= self.longest).then_some(asked.max(self.base));
        }
        let exponential = self.base.saturating_mul(1 << (done - 1).min(16)).min(self.longest);
        // Between 75 % and 125 %, so that many clients do not come back at once.
        Some(exponential * 3 / 4 + exponential / 2 * u32::try_from(jitter % 1000).unwrap_or(0) / 1000)
    }
}

/// Calls `attempt` until it succeeds or the policy gives up.
pub(crate) fn run<T>(
    policy: &RetryPolicy,
    progress: &dyn Progress,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T, ImageError> {
    let mut done = 0;
    loop {
        let failure = match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        done += 1;
        pause(policy, progress, done, failure)?;
    }
}

/// Waits before the next attempt and gives back what was wrong with this one; the error when there is none.
pub(crate) fn pause(
    policy: &RetryPolicy,
    progress: &dyn Progress,
    done: u32,
    failure: Failure,
) -> Result<Box<ImageError>, ImageError> {
    let Some(wait) = policy.wait(done, failure.again, random()) else { return Err(*failure.error) };
    let reason = format!("{}; again in {:.1} s", with_causes(&failure.error), wait.as_secs_f64());
    progress.event(ProgressEvent::Retry { reason });
    thread::sleep(wait);
    Ok(failure.error)
}

fn with_causes(error: &ImageError) -> String {
    let mut text = error.to_string();
    let mut at: &dyn std::error::Error = error;
    while let Some(cause) = at.source() {
        text = format!("{text}: {cause}");
        at = cause;
    }
    text
}

/// std seeds every `RandomState` differently; that is random enough for spreading waits.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Whether a transport failure is worth repeating. `known`: this registry has answered before. One that never has is
/// mistyped or down, and people want to know that at once.
pub(crate) fn after_transport(kind: FailureKind, known: bool) -> Again {
    match kind {
        FailureKind::Resolve | FailureKind::Connect | FailureKind::Timeout if known => Again::Few,
        FailureKind::Resolve | FailureKind::Connect => Again::Never,
        FailureKind::Timeout => Again::Once,
        FailureKind::Broken => Again::Often,
        FailureKind::Tls | FailureKind::Protocol | FailureKind::Proxy => Again::Never,
    }
}

/// How long a registry asks to wait (RFC 9110, 10.2.3): seconds, or a date. The date is compared with the
/// answer's own `Date`, so that the two clocks need not agree; without one, with `now` (unix seconds).
pub(crate) fn parse_retry_after(value: &str, date: Option<&str>, now: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let until = parse_http_date(value)?;
    let now = date.and_then(parse_http_date).unwrap_or(now);
    Some(Duration::from_secs(until.saturating_sub(now)))
}

/// Unix seconds of an IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7); senders use no other form.
fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.trim().split_once(", ")?;
    let words: Vec<&str> = rest.split(' ').collect();
    let [day, month, year, time, "GMT"] = words[..] else { return None };
    let number = |text: &str, most: u64| text.parse::<u64>().ok().filter(|&n| n <= most);
    let (day, year) = (number(day, 31)?, number(year, 9999).filter(|&y| y >= 1970)?);
    let month = MONTHS.iter().position(|m| *m == month)? as u64 + 1;
    let mut parts = time.split(':');
    let mut next = |most| number(parts.next()?, most);
    let (hour, minute, second) = (next(23)?, next(59)?, next(60)?);
    // Days since 1970-01-01 of the proleptic Gregorian calendar, with years that begin in March.
    let y = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (y / 400, y % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 5, base: Duration::from_millis(100), longest: Duration::from_secs(1) };

    #[test]
    fn waits_double_and_stay_bounded() {
        let waits: Vec<_> = (1..7).map(|done| POLICY.wait(done, Again::Often, 500).map(|d| d.as_millis())).collect();
        assert_eq!(waits, [Some(100), Some(200), Some(400), Some(800), None, None]);
        let many = RetryPolicy { attempts: 100, ..POLICY };
        assert!((1..100).all(|d| many.wait(d, Again::Often, 999).is_some_and(|w| w <= Duration::from_millis(1250))));
    }

    #[test]
    fn a_registry_may_ask_for_a_wait_but_not_for_any_length() {
        assert_eq!(POLICY.wait(1, Again::After(Duration::from_secs(1)), 0), Some(Duration::from_secs(1)));
        assert_eq!(POLICY.wait(1, Again::After(Duration::from_secs(2)), 0), None);
        assert_eq!(POLICY.wait(1, Again::After(Duration::ZERO), 0), Some(POLICY.base));
    }

    #[test]
    fn hopeless_attempts_are_not_repeated() {
        assert_eq!(POLICY.wait(1, Again::Never, 0), None);
        assert!(POLICY.wait(2, Again::Few, 0).is_some());
        assert_eq!(POLICY.wait(3, Again::Few, 0), None);
        assert!(POLICY.wait(1, Again::Once, 0).is_some());
        assert_eq!(POLICY.wait(2, Again::Once, 0), None);
        assert_eq!(after_transport(FailureKind::Connect, false), Again::Never);
        assert_eq!(after_transport(FailureKind::Connect, true), Again::Few);
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        let read = |value: &str| parse_retry_after(value, None, 784_111_700).map(|d| d.as_secs());
        assert_eq!(read(" 7 "), Some(7));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(77));
        assert_eq!(read("Wed, 21 Oct 1992 07:28:00 GMT"), Some(0));
        let date = Some("Thu, 29 Feb 2024 23:59:50 GMT");
        assert_eq!(parse_retry_after("Fri, 01 Mar 2024 00:00:05 GMT", date, 5), Some(Duration::from_secs(15)));
        for other in ["", "-1", "Wed, 21 Okt 2015 07:28:00 GMT", "99999999999", "Sun, 06 Nov 1994 08:49 GMT"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
