//! Arguments as runc takes them (Go's flag package below urfave/cli): `--name value`, `--name=value`, one dash
//! as good as two. Flags of a verb may also follow its arguments, up to `--`; only where the words after the
//! id belong to somebody else (`exec`, `ps`) they end at the first other word.

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
    is_number: bool,
    help: &'static str,
}

impl Flag {
    pub(super) const fn switch(long: &'static str, short: &'static str) -> Self {
        Self { long, short, takes_value: false, is_number: false, help: "" }
    }

    pub(super) const fn value(long: &'static str, short: &'static str) -> Self {
        Self { long, short, takes_value: true, is_number: false, help: "" }
    }

    /// A value that has to be a whole number, as the command line says; what it is for may allow fewer.
    pub(super) const fn number(long: &'static str, short: &'static str) -> Self {
        Self { long, short, takes_value: true, is_number: true, help: "" }
    }

    /// Its line in the help; without one it is accepted and not shown.
    pub(super) const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    /// `--bundle value, -b value` and what it does; `None` for one that is not shown.
    pub(super) fn describe(&self) -> Option<(String, &'static str)> {
        let value = if self.takes_value { " value" } else { "" };
        let mut names = format!("--{}{value}", self.long);
        if !self.short.is_empty() {
            names += &format!(", -{}{value}", self.short);
        }
        (!self.help.is_empty()).then_some((names, self.help))
    }
}

/// Where the flags of a verb may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Before and after the arguments.
    Anywhere,
    /// Before the first argument: the rest is somebody else's command line.
    First,
}

/// Parsed arguments.
#[derive(Debug, Default)]
pub(super) struct Args {
    given: Vec<(&'static str, OsString)>,
    rest: Vec<OsString>,
}

/// `-name`, `--name`, `--name=value` as name and value; `None` for any other word.
fn split(word: &OsStr) -> Option<(&[u8], Option<OsString>)> {
    let bytes = word.as_bytes();
    let name = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).filter(|n| !n.is_empty())?;
    match name.iter().position(|b| *b == b'=') {
        Some(at) => Some((&name[..at], Some(OsStr::from_bytes(&name[at + 1..]).to_owned()))),
        None => Some((name, None)),
    }
}

fn find<'f>(flags: &'f [Flag], name: &[u8]) -> Option<&'f Flag> {
    flags.iter().find(|f| f.long.as_bytes() == name || (!f.short.is_empty() && f.short.as_bytes() == name))
}

impl Args {
    /// Flags before the first other word.
    pub(super) fn parse(args: &[OsString], flags: &[Flag]) -> Result<Self, CliError> {
        Self::parse_ordered(args, flags, Order::First)
    }

    pub(super) fn parse_ordered(args: &[OsString], flags: &[Flag], order: Order) -> Result<Self, CliError> {
        let mut out = Self::default();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                out.rest.extend(words.cloned());
                break;
            }
            let split = split(word);
            let flag = split.as_ref().and_then(|(name, _)| find(flags, name));
            match (flag, split) {
                (Some(flag), Some((_, inline))) => {
                    let value = flag_value(flag, inline, &mut words)?;
                    out.given.push((flag.long, value));
                }
                // A word with a dash after the id may be a negative number: runc leaves it where it is.
                (None, Some((name, _))) if out.rest.is_empty() => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(CliError::Flags(format!("flag provided but not defined: -{name}")));
                }
                _ => {
                    out.rest.push(word.clone());
                    if order == Order::First {
                        out.rest.extend(words.cloned());
                        break;
                    }
                }
            }
        }
        Ok(out)
    }

    /// A switch is on.
    pub(super) fn is(&self, long: &str) -> bool {
        self.last(long).is_some_and(|v| v == "true")
    }

    fn last(&self, long: &str) -> Option<&OsString> {
        self.given.iter().rev().find(|(n, _)| *n == long).map(|(_, v)| v)
    }

    /// The flag was given, with whatever value.
    pub(super) fn has(&self, long: &str) -> bool {
        self.last(long).is_some()
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
        n.map(Some).ok_or_else(|| CliError::Flags(format!("invalid value {v:?} for flag -{long}: it is not a number")))
    }

    /// What follows the flags.
    pub(super) fn rest(&self) -> &[OsString] {
        &self.rest
    }

    /// The container's id: the first word.
    pub(super) fn id(&self) -> Result<String, CliError> {
        match self.rest.first() {
            Some(id) => utf8(id),
            None => Err(CliError::Usage("no container id was given".into())),
        }
    }
}

fn flag_value<'w>(
    flag: &Flag,
    inline: Option<OsString>,
    words: &mut impl Iterator<Item = &'w OsString>,
) -> Result<OsString, CliError> {
    match (flag.takes_value, inline) {
        (true, inline) => {
            let value = inline.or_else(|| words.next().cloned());
            let value = value.ok_or_else(|| CliError::Flags(format!("flag needs an argument: -{}", flag.long)))?;
            match flag.is_number && value.to_str().is_none_or(|v| v.parse::<i64>().is_err()) {
                true => Err(CliError::Flags(format!("invalid value {value:?} for flag -{}: parse error", flag.long))),
                false => Ok(value),
            }
        }
        (false, None) => Ok("true".into()),
        // The spellings of Go's strconv.ParseBool.
        (false, Some(v)) => match v.as_bytes() {
            b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Ok("true".into()),
            b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Ok("false".into()),
            _ => Err(CliError::Flags(format!("invalid boolean value {v:?} for -{}", flag.long))),
        },
    }
}

/// A word as text.
pub(super) fn utf8(word: &OsStr) -> Result<String, CliError> {
    word.to_str().map(str::to_owned).ok_or_else(|| CliError::Usage(format!("{word:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[Flag::value("bundle", "b"), Flag::switch("detach", "d"), Flag::number("limit", "")];

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn parse(list: &[&str]) -> Result<Args, CliError> {
        Args::parse(&words(list), FLAGS)
    }

    #[test]
    fn flags_end_at_the_first_word_where_the_rest_is_a_command() {
        let a = parse(&["-b", "/x", "--detach", "id", "-d"]).unwrap();
        assert_eq!(a.text("bundle"), Some("/x"));
        assert!(a.is("detach"));
        assert_eq!(a.rest(), ["id", "-d"]);
    }

    #[test]
    fn flags_may_follow_the_id_and_unknown_words_with_a_dash_stay_arguments() {
        let list = words(&["id", "-d", "-9", "--bundle=/x", "--", "-d"]);
        let a = Args::parse_ordered(&list, FLAGS, Order::Anywhere).unwrap();
        assert!(a.is("detach"));
        assert_eq!(a.text("bundle"), Some("/x"));
        assert_eq!(a.rest(), ["id", "-9", "-d"]);
    }

    #[test]
    fn values_may_be_attached_and_switches_turned_off() {
        let a = parse(&["--bundle=/y=z", "-detach=false", "--", "-x"]).unwrap();
        assert_eq!(a.text("bundle"), Some("/y=z"));
        assert!(!a.is("detach") && a.has("detach"));
        assert_eq!(a.rest(), ["-x"]);
        assert_eq!(parse(&["--limit", "-1"]).unwrap().number::<i64>("limit").unwrap(), Some(-1));
    }

    #[test]
    fn unknown_flags_missing_values_and_bad_booleans_are_errors() {
        for bad in [&["--nope"][..], &["--bundle"], &["-detach=maybe"], &["--limit", "x"], &["--limit="], &["-"]] {
            let refused = parse(bad).is_err();
            assert_eq!(refused, bad != ["-"], "{bad:?}");
        }
    }
}
