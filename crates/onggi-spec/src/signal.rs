//! Signal names and numbers of Linux on x86_64 (signal(7)).

use crate::ParseError;

/// Names without `SIG`; the position is the number.
const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH",
    "IO", "PWR", "SYS",
];
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// First real-time signal that programs may use: glibc keeps 32 and 33.
const RTMIN: i32 = 34;
/// Last real-time signal.
const RTMAX: i32 = 64;

/// Reads `SIGTERM`, `term`, `15`, `RTMIN+3`, `SIGRTMAX-1`.
///
/// # Errors
/// For an unknown name or a number outside 1 to 64.
pub fn parse_signal(text: &str) -> Result<i32, ParseError> {
    let err = || {
        ParseError::new("signal", text, "no such signal").hint("write a name or a number, as in TERM, SIGKILL or 15")
    };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|n| (1..=RTMAX).contains(n)).ok_or_else(err);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let standard = NAMES.iter().skip(1).position(|n| *n == name).and_then(|i| i32::try_from(i + 1).ok());
    let alias = || ALIASES.iter().find(|(n, _)| *n == name).map(|(_, number)| *number);
    standard.or_else(alias).or_else(|| real_time(name)).ok_or_else(err)
}

/// `SIGTERM` for 15; `SIGRTMIN+1` for 35; the number itself when it has no name.
pub fn signal_name(number: i32) -> String {
    let known = usize::try_from(number).ok().and_then(|i| NAMES.get(i)).filter(|n| !n.is_empty());
    match (known, number) {
        (Some(name), _) => format!("SIG{name}"),
        (None, RTMIN) => "SIGRTMIN".to_owned(),
        (None, n) if (RTMIN..=RTMAX).contains(&n) => format!("SIGRTMIN+{}", n - RTMIN),
        (None, n) => n.to_string(),
    }
}

fn real_time(name: &str) -> Option<i32> {
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (RTMIN, rest),
        (_, Some(rest)) => (RTMAX, rest),
        _ => return None,
    };
    let digits = |s: &str| s.parse::<i32>().ok().filter(|_| s.bytes().all(|b| b.is_ascii_digit()));
    let number = match (offset.strip_prefix('+'), offset.strip_prefix('-')) {
        (Some(n), _) if base == RTMIN => base.checked_add(digits(n)?)?,
        (_, Some(n)) if base == RTMAX => base.checked_sub(digits(n)?)?,
        _ if offset.is_empty() => base,
        _ => return None,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (text, want) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMAX", 64),
            ("POLL", 29),
            ("64", 64),
        ] {
            assert_eq!(parse_signal(text), Ok(want), "{text}");
        }
        for n in (1..=31).chain(34..=64) {
            assert_eq!(parse_signal(&signal_name(n)), Ok(n));
        }
    }

    #[test]
    fn unknown_signals_are_refused() {
        for text in [
            "",
            "0",
            "65",
            "-9",
            "+9",
            "SIG",
            "SIGSIGTERM",
            "FOO",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+31",
            "RTMIN+99999999999",
            "999999999999",
        ] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
