//! Names that mean in Docker's templates what our JSON says otherwise.
//!
//! Docker renders structures and maps: a field that a structure lacks is an error, a key that a map lacks prints `<no value>`.
//! The interpreter knows maps only, and takes a missing name for an error; so a key of a map, which is known by the
//! map's name, is asked for by a function. Fields of structures have names of their own beside those of the JSON.

use gotmpl::{TemplateError, Value};

use super::label;

/// Names of fields, after the name of what they are in (nothing: the value itself), and what the JSON calls them.
pub(super) type Other = &'static [(Option<&'static str>, &'static str, &'static str)];

/// Docker's structures of containers and images.
pub(super) const OF_STRUCTURES: Other = &[
    (None, "ID", "Id"),
    (Some("HostConfig"), "CPUShares", "CpuShares"),
    (Some("HostConfig"), "CPUPeriod", "CpuPeriod"),
    (Some("HostConfig"), "CPUQuota", "CpuQuota"),
    (Some("HostConfig"), "NanoCPUs", "NanoCpus"),
    (Some("HostConfig"), "DNS", "Dns"),
    (Some("HostConfig"), "DNSOptions", "DnsOptions"),
    (Some("HostConfig"), "DNSSearch", "DnsSearch"),
];

/// Maps whose keys users and images choose.
const MAPS: [&str; 10] = [
    "Labels",
    "Annotations",
    "Ports",
    "PortBindings",
    "ExposedPorts",
    "Volumes",
    "Networks",
    "Sysctls",
    "Tmpfs",
    "Data",
];

/// The template with names that the interpreter can look up.
pub(super) fn understood(template: &str, other: Other) -> String {
    label::in_actions(template, |action| in_action(action, other))
}

fn in_action(action: &str, other: Other) -> String {
    let (mut out, mut rest) = (String::new(), action);
    if action.trim_start_matches("- ").trim_start().starts_with("/*") {
        return action.to_owned();
    }
    while let Some(c) = rest.chars().next() {
        let inside = out.ends_with(|p: char| p.is_alphanumeric() || matches!(p, '_' | ')'));
        let taken = match (chain(rest).filter(|_| !inside), c) {
            (Some(whole), _) => {
                out += &renamed(whole, other);
                whole.len()
            }
            (None, '"' | '`') => {
                let whole = label::quoted(rest).unwrap_or(rest);
                out += whole;
                whole.len()
            }
            (None, _) => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

/// `.A.B` or `$x.A` at the beginning.
fn chain(text: &str) -> Option<&str> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let fields = match text.strip_prefix('$') {
        Some(after) => after.trim_start_matches(word),
        None => text,
    };
    let mut rest = fields;
    while let Some(after) =
        rest.strip_prefix('.').filter(|after| after.starts_with(|c: char| word(c) && !c.is_numeric()))
    {
        rest = after.trim_start_matches(word);
    }
    (rest.len() < fields.len()).then(|| &text[..text.len() - rest.len()])
}

fn renamed(chain: &str, other: Other) -> String {
    let (variable, fields) = chain.split_once('.').unwrap_or((chain, ""));
    let (mut out, mut within, mut chosen) = (variable.to_owned(), None, false);
    for field in fields.split('.') {
        if chosen {
            out = format!("(entry {out} \"{field}\")");
        } else {
            let known = other.iter().find(|(place, name, _)| *place == within && *name == field);
            out = format!("{out}.{}", known.map_or(field, |(.., json)| json));
        }
        // What is in a map of the users' is of one kind, and none of it is such a map.
        chosen = !chosen && MAPS.contains(&field);
        within = Some(field);
    }
    out
}

/// `entry MAP KEY`: nothing where the map has no such key, or is not there.
pub(super) fn entry(args: &[Value]) -> Result<Value, TemplateError> {
    let [map, Value::String(key)] = args else { return Err(super::misuse("entry MAP KEY")) };
    match map {
        Value::Map(map) => Ok(map.get(key.as_ref()).cloned().unwrap_or(Value::Nil)),
        Value::Nil => Ok(Value::Nil),
        other => Err(TemplateError::Exec(format!("can't evaluate field {key} in type {}", other.type_name()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::render::template::RowTemplate;

    fn render(template: &str) -> Result<String, TemplateError> {
        let row = json!({"Id": "1", "Config": {"Labels": {"a": "x", "ID": "own"}, "Tty": true}, "Volumes": null,
            "HostConfig": {"Dns": ["d"]}, "Labels": "text", "Mounts": [{"Type": "bind"}],
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.0.0.2"}}}});
        RowTemplate::of_structures(template)?.render(&row)
    }

    #[test]
    fn a_key_that_a_map_lacks_has_no_value() {
        for (template, want) in [
            ("{{.Config.Labels.a}}", "x"),
            ("{{.Config.Labels.nope}}", "<no value>"),
            ("{{$.Config.Labels.nope}} {{$x := .}}{{$x.Config.Labels.a}}", "<no value> x"),
            (
                "{{if .Config.Labels.nope}}y{{else}}n{{end}}{{with .Config}}{{.Labels.a}}{{.Labels.no}}{{end}}",
                "nx<no value>",
            ),
            (
                "{{.NetworkSettings.Networks.bridge.IPAddress}} {{.NetworkSettings.Networks.none.IPAddress}}",
                "10.0.0.2 <no value>",
            ),
            ("{{(index .NetworkSettings.Networks \"bridge\").IPAddress}} {{.Volumes.x}}", "10.0.0.2 <no value>"),
            ("{{len .Config.Labels}}{{json .Config.Labels}}", "2{\"ID\":\"own\",\"a\":\"x\"}"),
            ("{{printf \"%s .Config.Labels.nope\" .Config.Labels.a | upper}}", "X .CONFIG.LABELS.NOPE"),
            ("{{/* .Config.Labels.nope */}}{{.Config.Tty | printf \"%v .5\"}}", "true .5"),
        ] {
            assert_eq!(render(template).expect(template), want);
        }
    }

    #[test]
    fn a_field_that_a_structure_lacks_is_an_error() {
        for template in ["{{.Nope}}", "{{.Config.Nope}}", "{{.NetworkSettings.Networks.bridge.Nope}}", "{{.Labels.x}}"]
        {
            assert!(render(template).is_err(), "{template}");
        }
    }

    #[test]
    fn fields_may_be_called_as_in_dockers_structures() {
        for (template, want) in [
            ("{{.ID}} {{.Id}}{{range .Mounts}}{{$.ID}}{{.Type}}{{end}}", "1 11bind"),
            ("{{.HostConfig.DNS}}{{.HostConfig.Dns}} {{.Config.Labels.ID}}", "[d][d] own"),
        ] {
            assert_eq!(render(template).expect(template), want);
        }
        assert!(render("{{.Config.ID}}").is_err());
        assert!(RowTemplate::parse("{{.ID}}").and_then(|t| t.render(&json!({"Id": "1"}))).is_err());
    }
}
