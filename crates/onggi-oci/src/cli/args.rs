//! Arguments as Go's flag parsers take them: `--name value`, `--name=value`, one dash as good as two, flags
//! end at the first other word or at `--`.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use super::CliError;

/// A flag that a verb knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    long: &'static str,
    short: &'static str,
    takes_value: bool,
}

impl Flag {
    pub(super) const fn switch(long: &'static str, short: &'static str) -> Self {
        Self { long, short, takes_value: false }
    }

    pub(super) const fn value(long: &'static str, short: &'static str) -> Self {
        Self { long, short, takes_value: true }
    }
}

/// Parsed arguments.
#[derive(Debug, Default)]
pub(super) struct Args {
    given: Vec<(&'static str, OsString)>,
    rest: Vec<OsString>,
}

impl Args {
    pub(super) fn parse(args: &[OsString], flags: &[Flag]) -> Result<Self, CliError> {
        let mut out = Self::default();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let bytes = word.as_bytes();
            if bytes == b"--" {
                out.rest.extend(words.cloned());
                break;
            }
            let Some(name) = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).filter(|n| !n.is_empty())
            else {
                out.rest.push(word.clone());
                out.rest.extend(words.cloned());
                break;
            };
            let (name, inline) = match name.iter().position(|b| *b == b'=') {
                Some(at) => (&name[..at], Some(OsStr::from_bytes(&name[at + 1..]).to_owned())),
                None => (name, None),
            };
            let known = flags.iter().find(|f| f.long.as_bytes() == name || (f.short.as_bytes() == name));
            let flag = known.ok_or_else(|| CliError::Usage(format!("unknown flag {word:?}; see onggi-oci --help")))?;
            let value = match (flag.takes_value, inline) {
                (_, Some(v)) => v,
                (false, None) => OsString::from("true"),
                (true, None) => words
                    .next()
                    .cloned()
                    .ok_or_else(|| CliError::Usage(format!("flag --{} needs a value", flag.long)))?,
            };
            out.given.push((flag.long, value));
        }
        Ok(out)
    }

    /// A switch is on.
    pub(super) fn is(&self, long: &str) -> bool {
        self.last(long).is_some_and(|v| v != "false" && v != "0")
    }

    fn last(&self, long: &str) -> Option<&OsString> {
        self.given.iter().rev().find(|(n, _)| *n == long).map(|(_, v)| v)
    }

    /// The last value of a flag, as text; one that is not UTF-8 counts as absent.
    pub(super) fn text(&self, long: &str) -> Option<&str> {
        self.last(long).and_then(|v| v.to_str())
    }

    /// The last value of a flag, as path.
    pub(super) fn path(&self, long: &str) -> Option<PathBuf> {
        self.last(long).filter(|v| !v.is_empty()).map(PathBuf::from)
    }

    /// All values of a flag.
    pub(super) fn all(&self, long: &str) -> Result<Vec<String>, CliError> {
        let values = self.given.iter().filter(|(n, _)| *n == long);
        values.map(|(_, v)| utf8(v)).collect()
    }

    /// A number.
    pub(super) fn number<T: std::str::FromStr>(&self, long: &str) -> Result<Option<T>, CliError> {
        let Some(v) = self.last(long) else { return Ok(None) };
        let n = v.to_str().and_then(|s| s.parse().ok());
        n.map(Some).ok_or_else(|| CliError::Usage(format!("--{long}: {v:?} is not a number")))
    }

    /// What follows the flags.
    pub(super) fn rest(&self) -> &[OsString] {
        &self.rest
    }

    /// Exactly one word: the container's id.
    pub(super) fn id(&self) -> Result<String, CliError> {
        match self.rest.as_slice() {
            [id] => utf8(id),
            [] => Err(CliError::Usage("no container id was given".into())),
            more => Err(CliError::Usage(format!("one container id is wanted, not {}", more.len()))),
        }
    }
}

/// A word as text.
pub(super) fn utf8(word: &OsStr) -> Result<String, CliError> {
    word.to_str().map(str::to_owned).ok_or_else(|| CliError::Usage(format!("{word:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[Flag::value("bundle", "b"), Flag::switch("detach", "d")];

    fn parse(words: &[&str]) -> Result<Args, CliError> {
        Args::parse(&words.iter().map(OsString::from).collect::<Vec<_>>(), FLAGS)
    }

    #[test]
    fn flags_end_at_the_first_word() {
        let a = parse(&["-b", "/x", "--detach", "id", "-d"]).unwrap();
        assert_eq!(a.text("bundle"), Some("/x"));
        assert!(a.is("detach"));
        assert_eq!(a.rest(), ["id", "-d"]);
    }

    #[test]
    fn values_may_be_attached_and_switches_turned_off() {
        let a = parse(&["--bundle=/y=z", "-detach=false", "--", "-x"]).unwrap();
        assert_eq!(a.text("bundle"), Some("/y=z"));
        assert!(!a.is("detach"));
        assert_eq!(a.rest(), ["-x"]);
    }

    #[test]
    fn unknown_flags_and_missing_values_are_errors() {
        assert!(parse(&["--nope"]).is_err());
        assert!(parse(&["--bundle"]).is_err());
    }
}
