//! Go templates for `--format`, behind one module: the crate that runs them may change.

use std::{collections::BTreeMap, sync::Arc};

use gotmpl::{MissingKey, Template, TemplateError, Value};
use serde_json::Value as Json;

mod label;
mod names;

/// A parsed template.
pub(crate) struct RowTemplate {
    /// What is shown row by row is nearly always fields and text between them: those need no interpreter, which
    /// would take most of the time of a listing.
    plain: Vec<Piece>,
    /// Everything else, and errors.
    template: Template,
}

/// A part of a template without functions, pipes and nesting.
enum Piece {
    Text(String),
    Field(String),
}

impl RowTemplate {
    /// Parses; `\t` and `\n` written out mean tab and newline, as with Docker.
    ///
    /// # Errors
    /// The template is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::with_names(text, &[])
    }

    /// The same for what Docker renders from structures, whose fields have other names than those of the JSON.
    ///
    /// # Errors
    /// The template is wrong.
    pub(crate) fn of_structures(text: &str) -> Result<Self, TemplateError> {
        Self::with_names(text, names::OF_STRUCTURES)
    }

    fn with_names(text: &str, other: names::Other) -> Result<Self, TemplateError> {
        let text = label::called(&text.replace("\\t", "\t").replace("\\n", "\n"));
        super::blocks::check(&text)?;
        let text = names::understood(&text, other);
        let template = Template::new("format")
            .missing_key(MissingKey::Error)
            .func("json", |args| to_json(first(args)))
            .func("lower", |args| Ok(text_value(first(args).to_string().to_lowercase())))
            .func("upper", |args| Ok(text_value(first(args).to_string().to_uppercase())))
            .func("title", |args| Ok(text_value(title(&first(args).to_string()))))
            .func("split", split)
            .func("join", join)
            .func("pad", pad)
            .func("truncate", truncate)
            .func("index", index)
            .func("entry", names::entry)
            .func("label", label::of);
        Ok(Self { plain: plain(&text).unwrap_or_default(), template: template.parse(&text)? })
    }

    /// Runs the template over one row.
    ///
    /// # Errors
    /// A field does not exist or a function was misused.
    pub(crate) fn render(&self, row: &Json) -> Result<String, TemplateError> {
        match self.fields(row) {
            Some(text) => Ok(text),
            None => self.template.execute_to_string(&from_json(row)),
        }
    }

    /// Only where each field is there and is a text.
    fn fields(&self, row: &Json) -> Option<String> {
        let mut out = String::new();
        for piece in &self.plain {
            out.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Field(name) => row.get(name)?.as_str()?,
            });
        }
        (!self.plain.is_empty()).then_some(out)
    }
}

/// `{{.Field}}` and text; `None` for anything else.
fn plain(text: &str) -> Option<Vec<Piece>> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, from)) = rest.split_once("{{") {
        let (action, after) = from.split_once("}}")?;
        let name = action.trim_matches(' ').strip_prefix('.')?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Field(name.to_owned()));
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Some(pieces)
}

fn first(args: &[Value]) -> &Value {
    args.first().unwrap_or(&Value::Nil)
}

fn text_value(text: String) -> Value {
    Value::String(text.into())
}

fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::Int(i),
            (None, Some(u)) => Value::Uint(u),
            (None, None) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::String(s.as_str().into()),
        Json::Array(list) => Value::List(list.iter().map(from_json).collect()),
        Json::Object(map) => {
            let entries: BTreeMap<Arc<str>, Value> =
                map.iter().map(|(k, v)| (k.as_str().into(), from_json(v))).collect();
            Value::Map(Arc::new(entries))
        }
    }
}

fn back(value: &Value) -> Json {
    match value {
        Value::Nil | Value::Function(_) => Json::Null,
        Value::Bool(b) => (*b).into(),
        Value::Int(i) => (*i).into(),
        Value::Uint(u) => (*u).into(),
        Value::Float(f) => (*f).into(),
        Value::String(s) => Json::String(s.to_string()),
        Value::List(list) => list.iter().map(back).collect(),
        Value::Map(map) => map.iter().map(|(k, v)| (k.to_string(), back(v))).collect(),
    }
}

fn to_json(value: &Value) -> Result<Value, TemplateError> {
    Ok(text_value(back(value).to_string()))
}

fn title(text: &str) -> String {
    let word = |w: &str| {
        let mut chars = w.chars();
        chars.next().map(|c| c.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// `split "a,b" ","`.
fn split(args: &[Value]) -> Result<Value, TemplateError> {
    let [text, separator] = args else { return Err(misuse("split TEXT SEPARATOR")) };
    let (text, separator) = (text.to_string(), separator.to_string());
    if separator.is_empty() {
        return Ok(Value::List(text.chars().map(|c| text_value(c.into())).collect()));
    }
    Ok(Value::List(text.split(&separator).map(|p| text_value(p.to_owned())).collect()))
}

/// `join LIST ","`.
fn join(args: &[Value]) -> Result<Value, TemplateError> {
    let [Value::List(list), separator] = args else { return Err(misuse("join LIST SEPARATOR")) };
    let words: Vec<String> = list.iter().map(ToString::to_string).collect();
    Ok(text_value(words.join(&separator.to_string())))
}

/// Widest padding that `pad` gives: a terminal's width, not a memory's (I12).
const MAX_PAD: i64 = 1000;

/// `pad TEXT BEFORE AFTER`.
fn pad(args: &[Value]) -> Result<Value, TemplateError> {
    let [text, before, after] = args else { return Err(misuse("pad TEXT BEFORE AFTER")) };
    let spaces = |v: &Value| " ".repeat(usize::try_from(v.as_int().unwrap_or(0).clamp(0, MAX_PAD)).unwrap_or(0));
    let text = text.to_string();
    if text.is_empty() {
        return Ok(text_value(text));
    }
    Ok(text_value(format!("{}{text}{}", spaces(before), spaces(after))))
}

/// `truncate TEXT N`.
fn truncate(args: &[Value]) -> Result<Value, TemplateError> {
    let [text, max] = args else { return Err(misuse("truncate TEXT LENGTH")) };
    let max = usize::try_from(max.as_int().unwrap_or(0)).unwrap_or(0);
    Ok(text_value(text.to_string().chars().take(max).collect()))
}

/// `index VALUE KEY…`. A map of texts has the empty text for a key that it has not, as Go's `map[string]string` of labels has.
fn index(args: &[Value]) -> Result<Value, TemplateError> {
    let [value, keys @ ..] = args else { return Err(misuse("index VALUE KEY...")) };
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Map(map), Value::String(name)) => match map.get(&**name) {
                Some(found) => found.clone(),
                None if map.values().all(|v| matches!(v, Value::String(_))) => text_value(String::new()),
                None => Value::Nil,
            },
            (Value::Nil, Value::String(_)) => text_value(String::new()),
            (Value::List(list), key) => {
                let at = key.as_int().and_then(|at| usize::try_from(at).ok());
                let none = || TemplateError::Exec(format!("index out of range: {key}"));
                at.and_then(|at| list.get(at)).ok_or_else(none)?.clone()
            }
            (other, key) => return Err(TemplateError::Exec(format!("cannot take {key} of {other}"))),
        };
    }
    Ok(value)
}

fn misuse(usage: &str) -> TemplateError {
    TemplateError::Exec(format!("usage: {usage}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String, TemplateError> {
        let row = json!({"ID": "abc", "Names": "a,b", "State": {"Pid": 7, "Running": true}, "List": ["x", "y"], "None": null,
            "Labels": {"a": "1"}});
        RowTemplate::parse(template)?.render(&row)
    }

    #[test]
    fn templates_that_docker_users_write() {
        for (template, want) in [
            ("{{.ID}}", "abc"),
            (r"{{.ID}}\t{{.Names}}", "abc\ta,b"),
            ("{{.State.Pid}} {{.State.Running}}", "7 true"),
            ("{{json .List}}", r#"["x","y"]"#),
            (
                "{{json .}}",
                r#"{"ID":"abc","Labels":{"a":"1"},"List":["x","y"],"Names":"a,b","None":null,"State":{"Pid":7,"Running":true}}"#,
            ),
            ("{{range .List}}{{.}};{{end}}", "x;y;"),
            ("{{join (split .Names \",\") \"+\"}}", "a+b"),
            ("{{upper .ID}} {{title .ID}} {{truncate .ID 2}}", "ABC Abc ab"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{index .List 1}} {{len .List}} {{printf \"%5s\" .ID}}", "y 2   abc"),
            ("[{{index .Labels \"a\"}}{{index .Labels \"b\"}}{{index .None \"c\"}}]", "[1]"),
            ("{{index .State \"Pid\"}}{{index .State \"Nothing\"}}", "7<no value>"),
            ("{{with index .Labels \"b\"}}x{{else}}none{{end}} {{.Labels.a}}", "none 1"),
            ("{{pad .ID 1 2}}|", " abc  |"),
            ("a {{ .ID }}}}{{.Names}} b", "a abc}}a,b b"),
            ("x {{- .ID -}} y", "xabcy"),
            ("no field", "no field"),
            ("", ""),
        ] {
            assert_eq!(render(template).expect(template), want);
        }
    }

    #[test]
    fn unknown_fields_and_broken_templates_are_errors() {
        for bad in [
            "{{.Nope}}",
            "{{",
            "{{.ID",
            "{{nofunc .ID}}",
            "{{join .ID}}",
            "{{index .List 2}}",
            "{{index .ID 0}}",
            "{{index .List -1}}",
        ] {
            assert!(render(bad).is_err(), "{bad}");
        }
    }
}
