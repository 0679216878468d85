//! Whether every block of a Go template has its `{{end}}`, and every `{{end}}` its block, which the interpreter lets pass.

use gotmpl::TemplateError;

/// # Errors
/// As Go's text/template says it: `unexpected EOF`, `unexpected {{end}}`, `unexpected {{else}}`.
pub(super) fn check(text: &str) -> Result<(), TemplateError> {
    let mut open: Vec<&str> = Vec::new();
    let mut at = 0;
    while let Some(begin) = text[at..].find("{{").map(|found| at + found) {
        // Without an end it is the interpreter that complains.
        let Some(end) = end_of_action(text, begin + 2) else { return Ok(()) };
        let action = text[begin + 2..end].trim_start_matches("- ").trim_start();
        let word = action.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        match word {
            "if" | "range" | "with" | "block" | "define" => open.push(word),
            "end" if open.pop().is_none() => return Err(wrong(text, begin, "unexpected {{end}}".to_owned())),
            "else" if open.is_empty() => return Err(wrong(text, begin, "unexpected {{else}}".to_owned())),
            _ => {}
        }
        at = end + 2;
    }
    match open.last() {
        Some(word) => Err(wrong(text, text.len(), format!("unexpected EOF: {{{{{word}}}}} has no {{{{end}}}}"))),
        None => Ok(()),
    }
}

/// Where the `}}` of the action is that goes on at `from`: not one inside of a text or a comment.
fn end_of_action(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if text[from..].trim_start_matches("- ").starts_with("/*") {
        let comment = from + text[from..].find("*/")?;
        return Some(comment + text[comment..].find("}}")?);
    }
    let (mut at, mut quote) = (from, None);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, q @ (b'"' | b'`' | b'\'')) => quote = Some(q),
            (Some(b'"' | b'\''), b'\\') => at += 1,
            (Some(q), byte) if q == byte => quote = None,
            _ => {}
        }
        at += 1;
    }
    None
}

fn wrong(text: &str, at: usize, message: String) -> TemplateError {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let col = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    TemplateError::Parse { name: None, line, col, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_closed_pass() {
        for good in [
            "{{if .A}}x{{else if .B}}y{{else}}z{{end}}",
            "{{- range .L -}}{{with .X}}{{.}}{{end}}{{- end -}}",
            "{{printf \"}} {{end}} %s\" .A}} {{`}}`}} {{'}'}} {{/* if }} */}}",
            "{{.ended}} {{.if}} no braces }} {{\"a\\\"}}\"}}",
            "",
            "{{",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_block_without_end_and_an_end_without_block_are_errors() {
        for (bad, part) in [
            ("{{if .Names}}x", "unexpected EOF: {{if}} has no {{end}}"),
            ("{{range .}}", "{{range}} has no"),
            ("a{{end}}", "1:2: unexpected {{end}}"),
            ("{{else}}", "unexpected {{else}}"),
            ("{{if .A}}{{end}}\n{{- end}}", "2:1: unexpected {{end}}"),
        ] {
            let said = check(bad).expect_err(bad).to_string();
            assert!(said.contains(part), "{bad}: {said}");
        }
    }
}
