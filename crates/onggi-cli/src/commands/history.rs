//! `onggi history`.

use clap::{ArgAction, Args};
use onggi_engine::HistoryEntry;
use onggi_spec::quantity::human_size;
use serde_json::{Value, json};

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
        table, time,
    },
};

const COLUMNS: Columns = Columns {
    headers: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
        ("Tags", "TAGS"),
    ],
    default: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
};
/// Longest command that is shown without `--no-trunc`, as Docker has it.
const COMMAND: usize = 45;

/// Arguments of `history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
    /// Sizes and times as people say them [default: true]
    #[arg(short = 'H', long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    human: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Name or id of an image
    image: String,
}

impl HistoryArgs {
    /// Prints the steps, newest first.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let now = time::now();
        let steps = global.engine()?.history(&self.image)?;
        let rows: Vec<Value> = steps.iter().map(|step| self.row(step, now)).collect();
        let format = if self.quiet { Some("{{.ID}}") } else { self.format.as_deref() };
        render::stdout(&format::rows(format, &COLUMNS, &rows)?)?;
        Ok(0)
    }

    fn row(&self, step: &HistoryEntry, now: i64) -> Value {
        let id = match &step.id {
            Some(id) if self.no_trunc => id.to_string(),
            Some(id) => id.short().to_owned(),
            None => "<missing>".to_owned(),
        };
        let command = table::printable(&step.created_by);
        json!({
            "ID": id,
            "CreatedSince": if self.human { time::ago(now, step.created) } else { time::rfc3339(step.created) },
            "CreatedAt": time::rfc3339(step.created),
            "CreatedBy": if self.no_trunc { command } else { table::ellipsis(&command, COMMAND) },
            "Size": if self.human { human_size(step.size) } else { step.size.to_string() },
            "Comment": table::printable(&step.comment),
            "Tags": step.tags,
        })
    }
}
