//! The text of an annotation `org.systemd.property.NAME` as a typed value: GVariant's text format as far as
//! unit properties need it (truth values, numbers, strings, arrays, tuples, variants; `uint64 5`, `@as []`).
//!
//! The text comes from whoever wrote config.json. It is a value and nothing else: no property name, no second
//! property can be in it, and what it has too much of is an error.

use super::value::Value;

/// Longest text.
const MAX_TEXT: usize = 8192;
/// Deepest nesting.
const MAX_DEPTH: u32 = 8;

/// Why a text is no value.
pub(super) type Problem = &'static str;
type Result<T> = std::result::Result<T, Problem>;

/// What is written, before its type is known.
#[derive(Debug, Clone, PartialEq)]
enum Term {
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Term>),
    Tuple(Vec<Term>),
    Variant(Box<Term>),
    Typed(String, Box<Term>),
}

/// Reads a value.
pub(super) fn parse(text: &str) -> Result<Value> {
    if text.len() > MAX_TEXT {
        return Err("it is too long");
    }
    let mut reader = Reader { rest: text.trim() };
    let term = reader.term(0)?;
    if reader.rest.trim_start().is_empty() { typed(&term, None) } else { Err("something follows the value") }
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn term(&mut self, depth: u32) -> Result<Term> {
        if depth > MAX_DEPTH {
            return Err("it is nested too deeply");
        }
        self.skip();
        match self.rest.chars().next() {
            None => Err("it ends too early"),
            Some(quote @ ('\'' | '"')) => self.quoted(quote).map(Term::Text),
            Some('[') => self.items(']', depth).map(Term::List),
            Some('(') => self.items(')', depth).map(Term::Tuple),
            Some('<') => match self.items('>', depth)?.as_slice() {
                [one] => Ok(Term::Variant(Box::new(one.clone()))),
                _ => Err("a variant has one value"),
            },
            Some('@') => {
                self.rest = &self.rest[1..];
                let signature = self.word(|c| c.is_ascii_alphabetic() || matches!(c, '(' | ')')).to_owned();
                let complete = super::wire::split(&signature).is_ok_and(|(_, rest)| rest.is_empty());
                if complete { self.of_type(signature, depth) } else { Err("an unknown type") }
            }
            Some(c) if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => {
                Ok(Term::Number(self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.')).to_owned()))
            }
            Some(c) if c.is_ascii_alphabetic() => self.keyword(depth),
            Some(_) => Err("an unknown character"),
        }
    }

    fn of_type(&mut self, signature: String, depth: u32) -> Result<Term> {
        let term = self.term(depth + 1)?;
        Ok(Term::Typed(signature, Box::new(term)))
    }

    fn keyword(&mut self, depth: u32) -> Result<Term> {
        let signature = match self.word(|c| c.is_ascii_alphanumeric()) {
            "true" => return Ok(Term::Bool(true)),
            "false" => return Ok(Term::Bool(false)),
            "inf" => return Ok(Term::Number("inf".into())),
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            _ => return Err("an unknown word; texts are written in quotes"),
        };
        self.of_type(signature.into(), depth)
    }

    /// Items between brackets, separated by commas; one may follow the last.
    fn items(&mut self, end: char, depth: u32) -> Result<Vec<Term>> {
        self.rest = &self.rest[1..];
        let mut items = Vec::new();
        loop {
            self.skip();
            if let Some(rest) = self.rest.strip_prefix(end) {
                self.rest = rest;
                return Ok(items);
            }
            items.push(self.term(depth + 1)?);
            self.skip();
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None if self.rest.starts_with(end) => {}
                None => return Err("a comma or a closing bracket is missing"),
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => text.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, c @ ('\\' | '\'' | '"'))) => c,
                    _ => return Err("an unknown escape"),
                }),
                '\0' => return Err("a zero byte"),
                c => text.push(c),
            }
        }
        Err("a text has no end")
    }
}

/// Gives a term its type: what is asked for, or what it looks like (numbers are `int32` or `double`).
fn typed(term: &Term, wanted: Option<&str>) -> Result<Value> {
    match (term, wanted) {
        (Term::Typed(signature, inner), None) => typed(inner, Some(signature)),
        (Term::Typed(signature, inner), Some(wanted)) if signature == wanted => typed(inner, Some(signature)),
        (Term::Bool(v), None | Some("b")) => Ok(Value::Bool(*v)),
        (Term::Text(v), None | Some("s")) => Ok(Value::Str(v.clone())),
        (Term::Text(v), Some("o")) if is_object_path(v) => Ok(Value::ObjectPath(v.clone())),
        (Term::Text(v), Some("g")) if is_signature(v) => Ok(Value::Signature(v.clone())),
        (Term::Number(n), wanted) => number(n, wanted),
        (Term::Variant(inner), None | Some("v")) => Ok(Value::Variant(Box::new(typed(inner, None)?))),
        (Term::List(items), wanted) => list(items, wanted),
        (Term::Tuple(items), None) => fields(items.iter().map(|item| typed(item, None)).collect::<Result<_>>()?),
        (Term::Tuple(items), Some(wanted)) => tuple(items, wanted),
        _ => Err("the value does not have its type"),
    }
}

fn list(items: &[Term], wanted: Option<&str>) -> Result<Value> {
    let element = match (wanted, items.first()) {
        (Some(wanted), _) => wanted.strip_prefix('a').ok_or("the value does not have its type")?.to_owned(),
        (None, Some(first)) => typed(first, None)?.signature(),
        (None, None) => return Err("an empty array needs its type, such as @as []"),
    };
    let values = items.iter().map(|item| typed(item, Some(&element))).collect::<Result<_>>()?;
    Ok(Value::Array(element, values))
}

fn fields(values: Vec<Value>) -> Result<Value> {
    if values.is_empty() { Err("an empty tuple") } else { Ok(Value::Struct(values)) }
}

fn tuple(items: &[Term], wanted: &str) -> Result<Value> {
    const WRONG: Problem = "the value does not have its type";
    let mut rest = wanted.strip_prefix('(').and_then(|w| w.strip_suffix(')')).ok_or(WRONG)?;
    let mut values = Vec::new();
    for item in items {
        let (this, after) = super::wire::split(rest).map_err(|_| WRONG)?;
        values.push(typed(item, Some(this))?);
        rest = after;
    }
    if rest.is_empty() { fields(values) } else { Err(WRONG) }
}

fn number(text: &str, wanted: Option<&str>) -> Result<Value> {
    const WRONG: Problem = "a number is not one of its type";
    let double = text.contains('.') || text == "inf" || (text.contains(['e', 'E']) && !text.contains(['x', 'X']));
    let integer = || -> Result<i128> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
            Some(hex) => u64::from_str_radix(hex, 16),
            None if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(digits, 8),
            None => digits.parse(),
        };
        let value = i128::from(value.map_err(|_| WRONG)?);
        Ok(if negative { -value } else { value })
    };
    let wrong = |_| WRONG;
    Ok(match wanted {
        None if double => return number(text, Some("d")),
        None | Some("i") => Value::I32(integer()?.try_into().map_err(wrong)?),
        Some("y") => Value::Byte(integer()?.try_into().map_err(wrong)?),
        Some("n") => Value::I16(integer()?.try_into().map_err(wrong)?),
        Some("q") => Value::U16(integer()?.try_into().map_err(wrong)?),
        Some("u") => Value::U32(integer()?.try_into().map_err(wrong)?),
        Some("x") => Value::I64(integer()?.try_into().map_err(wrong)?),
        Some("t") => Value::U64(integer()?.try_into().map_err(wrong)?),
        Some("d") => Value::F64(text.parse().ok().filter(|n: &f64| !n.is_nan()).ok_or(WRONG)?),
        Some(_) => return Err("the value does not have its type"),
    })
}

fn is_object_path(path: &str) -> bool {
    let name = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(name))
}

fn is_signature(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        match super::wire::split(rest) {
            Ok((_, after)) => rest = after,
            Err(_) => return false,
        }
    }
    text.len() <= usize::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_type_that_they_say() {
        let strings = |items: &[&str]| Value::Array("s".into(), items.iter().map(|i| Value::str(*i)).collect());
        for (text, value) in [
            ("true", Value::Bool(true)),
            (" 42 ", Value::I32(42)),
            ("-1", Value::I32(-1)),
            ("uint64 30000000", Value::U64(30_000_000)),
            ("@t 0x10", Value::U64(16)),
            ("1.5", Value::F64(1.5)),
            ("'inactive-or-failed'", Value::str("inactive-or-failed")),
            (r#""a\"b""#, Value::str("a\"b")),
            ("['crio.service', 'x.service',]", strings(&["crio.service", "x.service"])),
            ("@as []", strings(&[])),
            ("@ay [0x01, 255]", Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(255)])),
            ("('a', uint32 1)", Value::Struct(vec![Value::str("a"), Value::U32(1)])),
            ("@(st) ('a', 1)", Value::Struct(vec![Value::str("a"), Value::U64(1)])),
            ("<'x'>", Value::Variant(Box::new(Value::str("x")))),
            ("objectpath '/a/b'", Value::ObjectPath("/a/b".into())),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "abc",
            "'a",
            "true false",
            "'a', 'b'",
            "[]",
            "[1, 'a']",
            "uint32 -1",
            "byte 256",
            "@t 'x'",
            "@zz 1",
            "@ss 'x'",
            "objectpath 'a'",
            "'a\0'",
            "[1",
            "1 2",
            "9999999999",
            "()",
            "int32 1.5",
            "'x' = 'y'",
            "<1, 2>",
        ] {
            assert!(parse(text).is_err(), "{text:?}: {:?}", parse(text));
        }
        assert!(parse(&"[".repeat(100)).is_err());
        assert!(parse(&format!("'{}'", "x".repeat(MAX_TEXT))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn texts_of_any_content_never_panic(text in "[a-z0-9@'\"<>()\\[\\], .ext+-]{0,40}", any in ".{0,40}") {
            let _ = (parse(&text), parse(&any));
        }
    }
}
