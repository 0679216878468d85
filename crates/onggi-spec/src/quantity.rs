//! Sizes (`512m`), CPUs (`1.5`), process counts. Exact integer arithmetic: no rounding surprises.

use crate::ParseError;

pub use crate::signal::parse_signal;

/// Least memory limit of a container, as Docker: below it not even an init starts.
pub const MIN_MEMORY: u64 = 6 << 20;

/// Least CPU limit in 10^-9 CPU: 0.01 CPU, below which the kernel's quota granularity ends.
pub const MIN_NANO_CPUS: u64 = 10_000_000;

/// Reads a size in bytes: `1024`, `1.5g`, `512m`, `64kb`, `1GiB`; units are powers of 1024.
///
/// # Errors
/// Outside that grammar or above 2^63 - 1.
pub fn parse_size(text: &str) -> Result<u64, ParseError> {
    let err = |reason| ParseError::new("size", text, reason).hint("write a number with b, k, m, g or t: 512m, 1.5g");
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(err("unknown unit")),
    };
    let (value, scale) = decimal(number).ok_or_else(|| err("not a number"))?;
    let bytes = value.checked_mul(1 << shift).map(|v| v / scale);
    bytes.and_then(|b| u64::try_from(b).ok()).filter(|b| i64::try_from(*b).is_ok()).ok_or_else(|| err("too large"))
}

/// Reads `-m`: at least 6m; 0 is no limit.
///
/// # Errors
/// As [`parse_size`], and below [`MIN_MEMORY`].
pub fn parse_memory(text: &str) -> Result<Option<u64>, ParseError> {
    match parse_size(text)? {
        0 => Ok(None),
        n if n < MIN_MEMORY => {
            Err(ParseError::new("memory limit", text, "the least memory limit is 6m").hint("use 6m or more"))
        }
        n => Ok(Some(n)),
    }
}

/// Reads `--cpus` into 10^-9 CPU; 0 is no limit.
///
/// # Errors
/// Outside the grammar, with more than nine decimals, or below 0.01.
pub fn parse_cpus(text: &str) -> Result<Option<u64>, ParseError> {
    let err = |reason| ParseError::new("number of CPUs", text, reason).hint("write a decimal number: 0.5, 2");
    let (value, scale) = decimal(text).ok_or_else(|| err("not a decimal number with at most nine decimals"))?;
    let nano = value.checked_mul(1_000_000_000 / scale).and_then(|n| u64::try_from(n).ok());
    match nano.filter(|n| *n <= 1 << 60).ok_or_else(|| err("too large"))? {
        0 => Ok(None),
        n if n < MIN_NANO_CPUS => Err(err("the least is 0.01")),
        n => Ok(Some(n)),
    }
}

/// Reads `--pids-limit`; 0 and -1 are unlimited, given back as -1.
///
/// # Errors
/// For anything but such a number.
pub fn parse_pids(text: &str) -> Result<i64, ParseError> {
    match text.parse::<i64>() {
        Ok(0 | -1) => Ok(-1),
        Ok(n) if n > 0 => Ok(n),
        _ => Err(ParseError::new("process limit", text, "expected a positive number, or -1 for no limit")),
    }
}

/// `12.5` as (125, 10); at most nine decimals.
fn decimal(text: &str) -> Option<(u128, u128)> {
    let (int, frac) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (int.is_empty() && frac.is_empty()) || !digits(int) || !digits(frac) || frac.len() > 9 || int.len() > 20 {
        return None;
    }
    let value = format!("{int}{frac}").parse().ok()?;
    Some((value, 10u128.pow(u32::try_from(frac.len()).ok()?)))
}

/// Bytes as Docker prints sizes: powers of 1000, at most three significant digits (`187MB`, `1.09GB`).
pub fn human_size(bytes: u64) -> String {
    scaled(bytes, 1000, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// Bytes in powers of 1024, at most four significant digits (`1.952GiB`, `512MiB`), as Docker prints memory.
pub fn human_memory(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn scaled(bytes: u64, base: u64, units: &[&str], significant: usize) -> String {
    let (mut index, mut unit) = (0, 1u64);
    while bytes / unit >= base && index + 1 < units.len() {
        unit *= base;
        index += 1;
    }
    let whole = bytes / unit;
    let decimals = significant.saturating_sub(whole.to_string().len());
    let scale = 10u128.pow(u32::try_from(decimals).unwrap_or(0));
    let rounded = (u128::from(bytes) * scale + u128::from(unit) / 2) / u128::from(unit);
    let (int, frac) = (rounded / scale, rounded % scale);
    let frac = if decimals == 0 { String::new() } else { format!("{frac:0decimals$}") };
    let frac = frac.trim_end_matches('0');
    let dot = if frac.is_empty() { "" } else { "." };
    format!("{int}{dot}{frac}{}", units[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_docker() {
        for (text, want) in [
            ("0", 0),
            ("1024", 1024),
            ("1b", 1),
            ("1k", 1024),
            ("1KB", 1024),
            ("1KiB", 1024),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("2G", 2 << 30),
            ("1t", 1 << 40),
            ("32 mb", 32 << 20),
            (".5m", 512 << 10),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        for text in ["", "m", "-1", "+1", "1x", "1.2.3", "1e9", "0x10", "1mm", "9999999p", "1.0000000001g", ".", "１"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_below_six_megabytes_is_refused() {
        assert_eq!(parse_memory("6m"), Ok(Some(6 << 20)));
        assert_eq!(parse_memory("0"), Ok(None));
        assert!(parse_memory("5m").is_err());
        assert!(parse_memory("4").is_err());
    }

    #[test]
    fn cpus_become_exact_nano_cpus() {
        for (text, want) in [("1.5", 1_500_000_000), ("0.01", 10_000_000), ("2", 2_000_000_000), (".5", 500_000_000)] {
            assert_eq!(parse_cpus(text), Ok(Some(want)), "{text}");
        }
        assert_eq!(parse_cpus("0"), Ok(None));
        for text in ["", "-1", "0.001", "1.0000000001", "x", "1,5", "99999999999"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pids() {
        assert_eq!((parse_pids("-1"), parse_pids("0"), parse_pids("7")), (Ok(-1), Ok(-1), Ok(7)));
        assert!(parse_pids("-2").is_err() && parse_pids("").is_err() && parse_pids("many").is_err());
    }

    #[test]
    fn sizes_are_shown_as_docker_shows_them() {
        for (n, want) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (13_256, "13.3kB"),
            (187_000_000, "187MB"),
            (1_093_484_928, "1.09GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(human_size(n), want);
        }
        for (n, want) in [(0, "0B"), (1 << 29, "512MiB"), (2_095_943_680, "1.952GiB")] {
            assert_eq!(human_memory(n), want);
        }
    }
}
