//! `-e`, `--env-file`, `--label`, `--hostname`: small textual rules.

use crate::ParseError;

/// Longest accepted variable: the kernel's limit of one argument or variable (MAX_ARG_STRLEN, execve(2)).
pub const MAX_VARIABLE: usize = 128 * 1024;

/// One `-e` value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvArg {
    /// `KEY=VALUE`.
    Set(String),
    /// `KEY`: the caller's own value is taken; when it has none, `-e` erases the variable and a file says nothing.
    FromCaller(String),
}

/// Puts one variable of a request into an environment: `KEY=VALUE` in the place of the old one or at the end, a bare
/// `KEY` erases it.
pub fn apply(env: &mut Vec<String>, variable: &str) {
    let key = variable.split('=').next();
    let same = |v: &String| v.split('=').next() == key;
    if !variable.contains('=') {
        return env.retain(|v| !same(v));
    }
    match env.iter_mut().find(|v| same(v)) {
        Some(old) => variable.clone_into(old),
        None => env.push(variable.to_owned()),
    }
}

/// Reads one `-e` value. Values may contain newlines, except HOME's: it ends up in passwd-like lines
/// (CVE-2022-4318).
///
/// # Errors
/// For an empty key, a NUL byte, a control character in the key, a newline in HOME, or too long a text.
pub fn parse_env(text: &str) -> Result<EnvArg, ParseError> {
    let err = |reason| {
        ParseError::new("environment variable", text, reason).hint("write KEY=VALUE, or KEY to pass your own value on")
    };
    let (key, value) = match text.split_once('=') {
        Some((k, v)) => (k, Some(v)),
        None => (text, None),
    };
    if key.is_empty() {
        return Err(err("the name is empty"));
    }
    if text.contains('\0') || text.len() > MAX_VARIABLE {
        return Err(err("it contains a NUL byte or is longer than 128 KiB"));
    }
    if key.chars().any(char::is_control) {
        return Err(err("the name contains a control character"));
    }
    match value {
        Some(v) if key == "HOME" && v.contains('\n') => Err(err("HOME contains a newline")),
        Some(_) => Ok(EnvArg::Set(text.to_owned())),
        None => Ok(EnvArg::FromCaller(key.to_owned())),
    }
}

/// Reads an `--env-file`: one variable per line, `#` starts a comment line, empty lines are skipped.
///
/// # Errors
/// The first line that [`parse_env`] refuses or whose name contains white space.
pub fn parse_env_file(text: &str) -> Result<Vec<EnvArg>, ParseError> {
    let lines = text.lines().map(|l| l.trim_start_matches([' ', '\t', '\u{feff}']));
    lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(parse_env_line).collect()
}

fn parse_env_line(line: &str) -> Result<EnvArg, ParseError> {
    let key = line.split('=').next().unwrap_or_default();
    if key.contains(char::is_whitespace) {
        return Err(ParseError::new("environment file line", line, "the name contains white space"));
    }
    parse_env(line)
}

/// Reads one `--label`: `key[=value]`.
///
/// # Errors
/// For an empty key or a control character in it.
pub fn parse_label(text: &str) -> Result<(String, String), ParseError> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() || key.chars().any(char::is_control) || text.contains('\0') {
        return Err(
            ParseError::new("label", text, "the key is empty or contains a control character").hint("write key=value")
        );
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Checks a host name: labels of letters, digits, underscores and inner hyphens, 63 characters in all. RFC 1123
/// has no underscore, but people name services with it, and sethostname(2) takes it.
///
/// # Errors
/// Outside that grammar.
pub fn parse_hostname(text: &str) -> Result<String, ParseError> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |l: &str| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(inner);
    if text.len() <= 63 && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err(ParseError::new(
        "host name",
        text,
        "expected letters, digits, underscores and inner hyphens, at most 63 characters",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_set_or_taken_from_the_caller() {
        assert_eq!(parse_env("A=b=c"), Ok(EnvArg::Set("A=b=c".into())));
        assert_eq!(parse_env("A="), Ok(EnvArg::Set("A=".into())));
        assert_eq!(parse_env("A"), Ok(EnvArg::FromCaller("A".into())));
        assert_eq!(parse_env("CERT=a\nb"), Ok(EnvArg::Set("CERT=a\nb".into())));
    }

    #[test]
    fn a_later_variable_replaces_and_a_bare_name_erases() {
        let mut env = ["A=1".to_owned(), "B=2".to_owned()].to_vec();
        for variable in ["A=3", "C=", "B", "D", "AA=4"] {
            apply(&mut env, variable);
        }
        assert_eq!(env, ["A=3", "C=", "AA=4"]);
    }

    #[test]
    fn variables_that_could_inject_are_refused() {
        for text in ["", "=", "=x", "A=\0", "A\nB=c", "\0", "HOME=/a\nroot2::0:0"] {
            assert!(parse_env(text).is_err(), "{text:?}");
        }
        assert!(parse_env(&format!("A={}", "x".repeat(MAX_VARIABLE))).is_err());
    }

    #[test]
    fn environment_files_follow_docker() {
        let got = parse_env_file("# c\n\nA=1\n  B=two words\r\nC\n").expect("parses");
        assert_eq!(got, [EnvArg::Set("A=1".into()), EnvArg::Set("B=two words".into()), EnvArg::FromCaller("C".into())]);
        assert!(parse_env_file("A B=1").is_err());
    }

    #[test]
    fn labels_and_host_names() {
        assert_eq!(parse_label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(parse_label("a"), Ok(("a".into(), String::new())));
        assert!(parse_label("=b").is_err() && parse_label("").is_err());
        for ok in ["a", "web-1", "my_host", "A.example", "0"] {
            assert!(parse_hostname(ok).is_ok(), "{ok}");
        }
        for bad in ["", "-a", "a-", "a..b", "a b", "a\n", ".", &"x".repeat(64)] {
            assert!(parse_hostname(bad).is_err(), "{bad:?}");
        }
    }
}
