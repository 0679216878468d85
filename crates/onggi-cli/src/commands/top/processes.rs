//! `onggi top CONTAINER`: its processes, as Docker and Podman list them.

use clap::Args;
use onggi_engine::{Column, ProcessTable, TopRequest};
use serde_json::{Map, Value};

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{self, format, table},
};

/// Arguments of `container top`.
#[derive(Debug, Args)]
pub(crate) struct ProcessesArgs {
    /// `json`, or a template over the titles of the columns: {{.PID}}, {{index . "%CPU"}}
    #[arg(long)]
    format: Option<String>,
    /// Container, then names of columns (pid,user,args) or options of ps(1) (aux, -o pid,comm)
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_names = ["CONTAINER", "COLUMNS|PS-OPTIONS"])]
    container_and_columns: Vec<String>,
}

impl ProcessesArgs {
    /// Prints the table.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        print(&self.container_and_columns, self.format.as_deref(), global)
    }
}

/// The processes of the container that is the first word.
pub(super) fn print(words: &[String], format: Option<&str>, global: &GlobalArgs) -> Result<u8, CliError> {
    let Some((container, rest)) = words.split_first() else { return Ok(0) };
    let request = request(rest)?;
    let processes = global.engine()?.top(container, &request)?;
    let text = match format {
        None | Some("" | "table") => table::processes(std::iter::once(&processes.titles).chain(&processes.rows)),
        Some(_) => values(&processes).iter().map(|row| format::one(format, row)).collect::<Result<String, _>>()?,
    };
    render::stdout(&text)?;
    Ok(0)
}

fn values(table: &ProcessTable) -> Vec<Value> {
    let object = |row: &Vec<String>| {
        let cells = table.titles.iter().cloned().zip(row.iter().cloned().map(Value::from));
        Value::Object(cells.collect::<Map<_, _>>())
    };
    table.rows.iter().map(object).collect()
}

/// As Podman: words that are names of columns are, and anything else is for ps(1).
fn request(words: &[String]) -> Result<TopRequest, CliError> {
    let Some(first) = words.first() else { return Ok(TopRequest::Usual) };
    let names: Vec<&str> = words.iter().flat_map(|word| word.split(',')).filter(|name| !name.is_empty()).collect();
    let known = |name: &&str| name.parse::<Column>().is_ok();
    if first.starts_with('-') || !names.iter().any(known) {
        return Ok(TopRequest::Ps(words.to_vec()));
    }
    let columns: Result<Vec<Column>, _> = names.iter().map(|name| name.parse()).collect();
    Ok(TopRequest::Columns(columns?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<TopRequest> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        request(&words).ok()
    }

    #[test]
    fn names_of_columns_are_told_from_options_of_ps() {
        let columns = |names: &[&str]| {
            Some(TopRequest::Columns(names.iter().map(|name| name.parse().expect("a column")).collect()))
        };
        assert_eq!(of(""), Some(TopRequest::Usual));
        assert_eq!(of("pid,ppid args"), columns(&["pid", "ppid", "args"]));
        assert_eq!(of("user"), columns(&["user"]));
        for ps in ["aux", "-ef", "-o pid,comm", "-eo pid,comm"] {
            assert!(matches!(of(ps), Some(TopRequest::Ps(_))), "{ps}");
        }
        assert_eq!(of("pid,colour"), None);
    }
}
