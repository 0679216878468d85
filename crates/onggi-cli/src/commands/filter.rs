//! `--filter key=value`, repeated.

use onggi_spec::ParseError;

/// Splits filters and checks their keys against `known`.
pub(super) fn parse(filters: &[String], known: &[&str]) -> Result<Vec<(String, String)>, ParseError> {
    filters.iter().map(|f| one(f, known)).collect()
}

fn one(text: &str, known: &[&str]) -> Result<(String, String), ParseError> {
    let err = |reason: &str| {
        ParseError::new("filter", text, reason).hint(format!("write key=value; keys: {}", known.join(", ")))
    };
    let (key, value) = text.split_once('=').ok_or_else(|| err("it has no '='"))?;
    match known.contains(&key) {
        true => Ok((key.to_owned(), value.to_owned())),
        false => Err(err("unknown key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_key_and_value() {
        let list = parse(&["label=a=b".to_owned()], &["label"]).expect("parses");
        assert_eq!(list, [("label".to_owned(), "a=b".to_owned())]);
        for bad in ["label", "x=y", ""] {
            assert!(parse(&[bad.to_owned()], &["label"]).is_err(), "{bad}");
        }
    }
}
