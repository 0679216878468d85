//! `--format`: nothing, `json`, `table`, `table TEMPLATE` or `TEMPLATE`, over rows of named values.

use serde_json::{Map, Value};

use super::{table, template::RowTemplate};
use crate::error::CliError;

/// The columns of a listing: field, header. The rows hold more fields than the default table shows.
pub(crate) struct Columns {
    /// Every field that a template may name, with its header.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// The default table.
    pub(crate) default: &'static str,
}

/// Rows as text.
///
/// # Errors
/// A wrong template.
pub(crate) fn rows(format: Option<&str>, columns: &Columns, rows: &[Value]) -> Result<String, CliError> {
    rendered(format, columns, rows).map_err(|e| match e {
        CliError::Template(source) => {
            CliError::Row { source, fields: columns.headers.iter().map(|(field, _)| *field).collect() }
        }
        other => other,
    })
}

/// What [`rows`] made, without the line of names above a table.
pub(crate) fn without_heading(format: Option<&str>, text: String) -> String {
    let table = format.is_none_or(|f| f.is_empty() || f == "table" || f.starts_with("table "));
    match text.split_once('\n').filter(|_| table) {
        Some((_, rows)) => rows.to_owned(),
        None => text,
    }
}

fn rendered(format: Option<&str>, columns: &Columns, rows: &[Value]) -> Result<String, CliError> {
    match format {
        None | Some("" | "table") => tabular(columns.default, columns, rows, usize::MAX),
        Some("json") => Ok(rows.iter().map(|r| format!("{r}\n")).collect()),
        Some(text) => match text.strip_prefix("table ") {
            Some(template) => tabular(template.trim_start(), columns, rows, usize::MAX),
            None => each(text, rows),
        },
    }
}

/// One value by `json` or a template; `json` pretty-printed otherwise.
///
/// # Errors
/// A wrong template.
pub(crate) fn one(format: Option<&str>, value: &Value) -> Result<String, CliError> {
    match format {
        None | Some("") => Ok(format!("{}\n", pretty(value)?)),
        Some("json") => Ok(format!("{value}\n")),
        Some(template) => each(template, std::slice::from_ref(value)),
    }
}

/// As [`one`] for what Docker has structures of: fields may be called as in them.
///
/// # Errors
/// A wrong template.
pub(crate) fn structure(template: &str, value: &Value) -> Result<String, CliError> {
    Ok(RowTemplate::of_structures(template)?.render(value)? + "\n")
}

/// JSON with four spaces of indentation, as Docker.
///
/// # Errors
/// Never for a [`Value`].
pub(crate) fn pretty(value: &Value) -> Result<String, CliError> {
    use serde::Serialize as _;
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn each(template: &str, rows: &[Value]) -> Result<String, CliError> {
    let template = RowTemplate::parse(template)?;
    let mut out = String::new();
    for row in rows {
        out.push_str(&template.render(row)?);
        out.push('\n');
    }
    Ok(out)
}

/// The header is the template run over the headers.
fn tabular(template: &str, columns: &Columns, rows: &[Value], most: usize) -> Result<String, CliError> {
    let parsed = RowTemplate::parse(template)?;
    let headers: Map<String, Value> = columns.headers.iter().map(|(k, h)| ((*k).to_owned(), Value::from(*h))).collect();
    let mut lines = vec![parsed.render(&Value::Object(headers))?];
    for row in rows {
        lines.push(parsed.render(row)?);
    }
    Ok(table::align_within(&lines, most))
}

/// As [`rows`]; in the default table a cell of more than `most` characters does not widen the column of all others.
///
/// # Errors
/// A wrong template.
pub(crate) fn rows_within(
    format: Option<&str>,
    columns: &Columns,
    rows: &[Value],
    most: usize,
) -> Result<String, CliError> {
    match format {
        None | Some("" | "table") => tabular(columns.default, columns, rows, most),
        other => self::rows(other, columns, rows),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: Columns =
        Columns { headers: &[("ID", "CONTAINER ID"), ("Names", "NAMES")], default: "{{.ID}}\t{{.Names}}" };

    fn show(format: Option<&str>) -> String {
        rows(format, &COLUMNS, &[json!({"ID": "1", "Names": "one"})]).expect("renders")
    }

    #[test]
    fn only_tables_have_a_heading_to_leave_out() {
        let bare = |format: Option<&str>| without_heading(format, show(format));
        assert_eq!(bare(None), "1              one\n");
        assert_eq!(bare(Some("table {{.Names}}")), "one\n");
        assert_eq!(bare(Some("{{.Names}}")), "one\n");
        assert_eq!(bare(Some("json")), show(Some("json")));
    }

    #[test]
    fn every_kind_of_format() {
        assert_eq!(show(None), "CONTAINER ID   NAMES\n1              one\n");
        assert_eq!(show(Some("table {{.Names}}")), "NAMES\none\n");
        assert_eq!(show(Some(r"table {{.Names}}\t{{.ID}}")), "NAMES     CONTAINER ID\none       1\n");
        assert_eq!(show(Some("{{.ID}}={{.Names}}")), "1=one\n");
        assert_eq!(show(Some("json")), "{\"ID\":\"1\",\"Names\":\"one\"}\n");
        assert_eq!(show(Some("{{json .}}")), "{\"ID\":\"1\",\"Names\":\"one\"}\n");
        assert!(rows(Some("{{.X}}"), &COLUMNS, &[json!({})]).is_err());
    }
}
