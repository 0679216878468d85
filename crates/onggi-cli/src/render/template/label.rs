//! `{{.Label "key"}}`: Docker's rows have a method there, which the interpreter of templates does not know. The call becomes
//! one of a function over the row's field of that name, a map.

use gotmpl::{TemplateError, Value};

/// The method.
const CALL: &str = ".Label";

/// `.Label "key"` as `(label .Label "key")`, in actions and outside of texts.
pub(super) fn called(template: &str) -> String {
    if !template.contains(CALL) {
        return template.to_owned();
    }
    in_actions(template, in_action)
}

/// A template with its actions changed.
pub(super) fn in_actions(template: &str, change: impl Fn(&str) -> String) -> String {
    let (mut out, mut rest) = (String::new(), template);
    while let Some((before, from)) = rest.split_once("{{") {
        let (action, after) = from.split_once("}}").unwrap_or((from, ""));
        let closed = if from.len() == action.len() { "" } else { "}}" };
        out += &format!("{before}{{{{{}{closed}", change(action));
        rest = after;
    }
    out + rest
}

fn in_action(action: &str) -> String {
    let (mut out, mut rest) = (String::new(), action);
    while let Some(c) = rest.chars().next() {
        let taken = match (c, argument(rest)) {
            (_, Some(whole)) => {
                out += &format!("(label {whole})");
                whole.len()
            }
            ('"' | '`', None) => {
                let whole = quoted(rest).unwrap_or(rest);
                out += whole;
                whole.len()
            }
            _ => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

/// The call at the beginning, with its argument.
fn argument(text: &str) -> Option<&str> {
    let after = text.strip_prefix(CALL)?;
    let argument = after.trim_start();
    if argument.len() == after.len() {
        return None;
    }
    let argument_length = quoted(argument)?.len();
    Some(&text[..text.len() - argument.len() + argument_length])
}

/// The text in quotes at the beginning, with them.
pub(super) fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '`'))?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return Some(&text[..=at]);
        }
        escaped = c == '\\' && quote == '"' && !escaped;
    }
    None
}

/// The value of a label; nothing where there is none. Above a table it is the last part of the key, as Docker shows it.
pub(super) fn of(args: &[Value]) -> Result<Value, TemplateError> {
    let [labels, Value::String(key)] = args else { return Err(super::misuse(".Label \"KEY\"")) };
    Ok(match labels {
        Value::Map(map) => map.get(key.as_ref()).cloned().unwrap_or_else(|| super::text_value(String::new())),
        _ => super::text_value(key.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::render::template::RowTemplate;

    #[test]
    fn a_label_is_taken_by_its_key() {
        let row = json!({"ID": "1", "Label": {"a.b-c": "x, y"}});
        for (template, want) in [
            (r#"{{.Label "a.b-c"}}"#, "x, y"),
            ("{{.ID}} {{ .Label `a.b-c` }}!", "1 x, y!"),
            (r#"<{{.Label "none"}}>"#, "<>"),
            (r#"{{if eq (.Label "a.b-c") "x, y"}}yes{{end}}"#, "yes"),
            (r#"{{.Label "a.b-c" | upper}}"#, "X, Y"),
            (r#"{{".Label \"q\""}}"#, r#".Label "q""#),
        ] {
            assert_eq!(RowTemplate::parse(template).and_then(|t| t.render(&row)).expect(template), want);
        }
        let header = json!({"ID": "ID", "Label": ""});
        let template = RowTemplate::parse(r#"{{.Label "com.example.my-key"}}"#).expect("it parses");
        assert_eq!(template.render(&header).expect("it renders"), "my key");
        assert_eq!(called("{{.ID}} .Label \"x\" {{.Label"), "{{.ID}} .Label \"x\" {{.Label");
    }
}
