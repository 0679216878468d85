//! A small argument parser for runc's command line: global options, a verb, its options, positionals.
//!
//! Options may be written `--name value`, `--name=value` or, for one letter, `-n value`; as in runc's own
//! parser, options end at the first positional or at `--`.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

/// One option that a verb knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opt {
    /// `pid-file`.
    pub(crate) name: &'static str,
    /// `b` for `-b`.
    pub(crate) short: Option<char>,
    /// Whether a value follows.
    pub(crate) takes: Takes,
}

/// Whether an option is followed by a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `--force`, or `--force=false`.
    Nothing,
    /// `--bundle DIR`.
    Value,
}

/// A flag.
pub(crate) const fn flag(name: &'static str, short: Option<char>) -> Opt {
    Opt { name, short, takes: Takes::Nothing }
}

/// An option with a value.
pub(crate) const fn value(name: &'static str, short: Option<char>) -> Opt {
    Opt { name, short, takes: Takes::Value }
}

/// Parsed options and what follows them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    options: BTreeMap<&'static str, Vec<OsString>>,
    /// Everything after the options.
    pub(crate) rest: Vec<OsString>,
}

impl Parsed {
    /// The last value of an option.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.options.get(name).and_then(|v| v.last()).map(OsString::as_os_str)
    }

    /// The last value as text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|v| v.to_string_lossy().into_owned())
    }

    /// Every value of a repeated option.
    pub(crate) fn all(&self, name: &str) -> &[OsString] {
        self.options.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a flag is set.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v != "false")
    }
}

/// Splits `args` by what `known` allows.
///
/// # Errors
/// An unknown option, or one without its value, in words.
pub(crate) fn parse(args: &[OsString], known: &[Opt]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut i = 0;
    while let Some(arg) = args.get(i) {
        let text = arg.to_string_lossy();
        if text == "--" {
            i += 1;
            break;
        }
        if !text.starts_with('-') || text == "-" {
            break;
        }
        let (name, inline) = match text.split_once('=') {
            Some((n, v)) => (n.to_owned(), Some(OsString::from(v))),
            None => (text.into_owned(), None),
        };
        let opt = find(&name, known).ok_or_else(|| format!("flag provided but not defined: {name}"))?;
        i += 1;
        let value = match (opt.takes, inline) {
            (_, Some(v)) => v,
            (Takes::Nothing, None) => OsString::from("true"),
            (Takes::Value, None) => {
                let v = args.get(i).cloned().ok_or_else(|| format!("flag needs an argument: {name}"))?;
                i += 1;
                v
            }
        };
        parsed.options.entry(opt.name).or_default().push(value);
    }
    parsed.rest = args.get(i..).unwrap_or_default().to_vec();
    Ok(parsed)
}

fn find(name: &str, known: &[Opt]) -> Option<Opt> {
    let bare = name.trim_start_matches('-');
    known.iter().copied().find(|o| o.name == bare || o.short.is_some_and(|s| bare.len() == 1 && bare.starts_with(s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Opt; 3] = [value("bundle", Some('b')), flag("detach", Some('d')), value("env", Some('e'))];

    fn os(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn options_end_at_the_first_positional() {
        let p = parse(&os(&["-b", "/x", "--detach", "id", "--env"]), &KNOWN).unwrap();
        assert_eq!((p.text("bundle").as_deref(), p.has("detach")), (Some("/x"), true));
        assert_eq!(p.rest, os(&["id", "--env"]));
    }

    #[test]
    fn repeated_options_keep_their_order_and_flags_can_be_false() {
        let p = parse(&os(&["-e", "A=1", "--env=B=2", "--detach=false", "--", "-x"]), &KNOWN).unwrap();
        assert_eq!(p.all("env"), os(&["A=1", "B=2"]));
        assert!(!p.has("detach"));
        assert_eq!(p.rest, os(&["-x"]));
    }

    #[test]
    fn unknown_options_and_missing_values_are_refused() {
        assert!(parse(&os(&["--nope"]), &KNOWN).is_err());
        assert!(parse(&os(&["--bundle"]), &KNOWN).is_err());
    }
}
