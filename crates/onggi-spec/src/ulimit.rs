//! `--ulimit`: `name=soft[:hard]`.

use serde::{Deserialize, Serialize};

use crate::ParseError;

/// Names as getrlimit(2) knows them without `RLIMIT_`, in small letters.
const NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// A limit of each process (getrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`.
    pub name: String,
    /// What the kernel enforces; `u64::MAX` is unlimited. Units are the resource's.
    pub soft: u64,
    /// What an unprivileged process may raise it to.
    pub hard: u64,
}

impl Ulimit {
    /// `RLIMIT_NOFILE`.
    pub fn kernel_name(&self) -> String {
        format!("RLIMIT_{}", self.name.to_ascii_uppercase())
    }
}

/// Reads one `--ulimit`.
///
/// # Errors
/// Outside the grammar, an unknown name, or a soft limit above the hard one.
pub fn parse_ulimit(text: &str) -> Result<Ulimit, ParseError> {
    let err = |reason: &str| ParseError::new("ulimit", text, reason).hint("write name=soft[:hard]: nofile=1024:2048");
    let (name, values) = text.split_once('=').ok_or_else(|| err("the value is missing"))?;
    if !NAMES.contains(&name) {
        let names = NAMES.join(", ");
        return Err(ParseError::new("ulimit", text, "there is no such limit").hint(format!("one of {names}")));
    }
    let number = |value: &str| match value {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ if value.bytes().all(|b| b.is_ascii_digit()) => value.parse().map_err(|_| err("it is no number")),
        _ => Err(err("it is no number, or -1 for no limit")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft > hard {
        return Err(err("ulimit soft limit must be less than or equal to hard limit"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_and_hard_limits_are_read() {
        let limit = parse_ulimit("nofile=1024:2048").expect("parses");
        assert_eq!((limit.soft, limit.hard, limit.kernel_name().as_str()), (1024, 2048, "RLIMIT_NOFILE"));
        let both = parse_ulimit("core=0").expect("parses");
        assert_eq!((both.soft, both.hard), (0, 0));
        assert_eq!(parse_ulimit("memlock=-1:-1").expect("parses").hard, u64::MAX);
        assert_eq!(parse_ulimit("stack=1:-1").expect("parses").hard, u64::MAX);
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for bad in
            ["", "nofile", "nofile=", "nofile=a", "nofile=2:1", "nofile=-1:5", "files=1", "nofile=1:2:3", "NOFILE=1"]
        {
            assert!(parse_ulimit(bad).is_err(), "{bad:?}");
        }
    }
}
