//! `onggi ps`.

use std::collections::HashMap;

use clap::{Args, ValueEnum};
use onggi_engine::{ContainerSummary, Engine, ListFilter, Status};
use onggi_spec::{ParseError, quantity::human_size};
use serde_json::{Value, json};

use super::{filter, ports};
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
        table::{ellipsis, printable},
        time,
    },
};

/// Characters of a command that are shown, as Docker.
const COMMAND_WIDTH: usize = 20;

const FILTERS: [&str; 12] = [
    "id", "name", "status", "label", "ancestor", "exited", "network", "before", "since", "volume", "publish", "expose",
];

const COLUMNS: Columns = Columns {
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Ports", "PORTS"),
        ("State", "STATE"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
        ("Labels", "LABELS"),
        ("Label", ""),
        ("Mounts", "MOUNTS"),
        ("Networks", "NETWORKS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
    ],
    default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
};

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// Only those that match: id, name, status, label, ancestor, exited, network, before, since, volume, publish, expose
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
    /// Only the newest N, running or not; -1 is all that run
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    last: Option<i64>,
    /// Only the newest one, running or not
    #[arg(short, long)]
    latest: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Show what each container has written, and in brackets that with its image
    #[arg(short, long)]
    size: bool,
    /// In the order of this field, as Podman [default: newest first]
    #[arg(long, value_name = "FIELD")]
    sort: Option<Field>,
    /// Leave out the names of the columns
    #[arg(long)]
    noheading: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
}

/// What containers are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Field {
    Command,
    /// Oldest first
    Created,
    Id,
    Image,
    Names,
    /// Longest running first
    Runningfor,
    /// What was written, then that with the image
    Size,
    Status,
}

impl PsArgs {
    /// Prints the list.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        // Docker takes any negative number for none.
        let last = if self.latest { Some(1) } else { self.last.and_then(|n| usize::try_from(n).ok()) };
        let list_filter = list_filter(&self.filter, self.all || last.is_some())?;
        let engine = global.engine()?;
        let mut list = engine.list(&list_filter)?;
        list.truncate(last.unwrap_or(usize::MAX));
        self.sort.map_or(Ok(()), |field| sort(&mut list, field, &engine))?;
        let now = time::now();
        let mut rows: Vec<Value> = list.iter().map(|c| row(c, now, self.no_trunc)).collect();
        // Only on request: it takes a walk through what each container has written.
        if self.size || self.format.as_deref().is_some_and(|f| f.contains(".Size")) {
            for (row, container) in rows.iter_mut().zip(&list) {
                row["Size"] = size(engine.sizes(&container.record)?).into();
            }
        }
        if self.format.as_deref().is_some_and(|f| f.contains(".Label ")) {
            for (row, container) in rows.iter_mut().zip(&list) {
                row["Label"] = container.record.request.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            }
        }
        let with_size = format!("table {}\t{{{{.Size}}}}", COLUMNS.default);
        let format = match self.format.as_deref() {
            _ if self.quiet => Some("{{.ID}}"),
            None | Some("" | "table") if self.size => Some(with_size.as_str()),
            own => own,
        };
        let text = format::rows(format, &COLUMNS, &rows)?;
        render::stdout(&if self.noheading { format::without_heading(format, text) } else { text })?;
        Ok(0)
    }
}

fn sort(list: &mut [ContainerSummary], field: Field, engine: &Engine) -> Result<(), CliError> {
    match field {
        Field::Command => list.sort_by(|a, b| a.record.command.cmp(&b.record.command)),
        Field::Created => list.sort_by_key(|c| c.record.created_at),
        Field::Id => list.sort_by(|a, b| a.record.id.as_str().cmp(b.record.id.as_str())),
        Field::Image => list.sort_by(|a, b| image(a, true).cmp(image(b, true))),
        Field::Names => list.sort_by(|a, b| a.record.name.as_str().cmp(b.record.name.as_str())),
        Field::Runningfor => list.sort_by_key(|c| started(&c.status)),
        Field::Status => list.sort_by_key(|c| c.status.name()),
        Field::Size => {
            let mut sizes = HashMap::new();
            for container in list.iter() {
                sizes.insert(container.record.id.clone(), engine.sizes(&container.record)?);
            }
            list.sort_by_key(|c| sizes.get(&c.record.id).copied());
        }
    }
    Ok(())
}

fn started(status: &Status) -> i64 {
    match status {
        Status::Created => 0,
        Status::Running { started_at, .. } => *started_at,
        Status::Exited(exit) => exit.started_at,
    }
}

fn list_filter(filters: &[String], all: bool) -> Result<ListFilter, ParseError> {
    let mut out = ListFilter { all, ..ListFilter::default() };
    for (key, value) in filter::parse(filters, &FILTERS)? {
        match key.as_str() {
            "id" => out.id.push(value),
            "name" => out.name.push(value),
            "status" => out.status.push(known_state(value)?),
            "label" => out.label.push(value),
            "ancestor" => out.ancestor.push(value),
            "network" => out.network.push(value),
            "before" => out.before = Some(value),
            "since" => out.since = Some(value),
            "volume" => out.volume.push(value),
            "publish" => out.publish.push(ports::range(&value)?),
            "expose" => out.expose.push(ports::range(&value)?),
            _ => out
                .exited
                .push(value.parse().map_err(|_| ParseError::new("filter", &value, "an exit code is a number"))?),
        }
    }
    Ok(out)
}

/// Docker's states; those that nothing is in yet are valid and match nothing.
fn known_state(value: String) -> Result<String, ParseError> {
    const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
    match STATES.contains(&value.as_str()) {
        true => Ok(value),
        false => Err(ParseError::new("filter", &value, "no such state").hint(format!("states: {}", STATES.join(", ")))),
    }
}

fn row(c: &ContainerSummary, now: i64, full: bool) -> Value {
    let r = &c.record;
    let command = r.command.join(" ");
    let shown = if full { command } else { ellipsis(&command, COMMAND_WIDTH) };
    let mounts: Vec<&str> = r.request.mounts.iter().map(|m| m.source.as_str()).collect();
    let labels: Vec<String> = r.request.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    json!({
        "ID": if full { r.id.as_str() } else { r.id.short() },
        "Image": image(c, full),
        "Command": format!("\"{}\"", printable(&shown).replace('"', "\\\"")),
        "CreatedAt": time::local(r.created_at),
        "RunningFor": time::ago(now, r.created_at),
        "Ports": ports::shown(&c.ports),
        "State": c.status.name(),
        "Status": status(&c.status, now),
        "Names": r.name.as_str(),
        "Labels": printable(&labels.join(",")),
        "Mounts": mounts.join(","),
        "Networks": r.request.network.name(),
        "LocalVolumes": "0",
        "Size": "",
    })
}

/// The name that the container was made from, or the image's id where that name means it no longer.
pub(super) fn image(c: &ContainerSummary, full: bool) -> &str {
    match &c.record.image_id {
        Some(id) if c.renamed => {
            if full {
                id.as_str()
            } else {
                id.short()
            }
        }
        _ => &c.record.image_name,
    }
}

/// `0B (virtual 1.98MB)`; without an image, what was written alone.
fn size((written, whole): (u64, u64)) -> String {
    match whole {
        0 => human_size(written),
        whole => format!("{} (virtual {})", human_size(written), human_size(whole)),
    }
}

/// `Up 3 seconds`, `Up 3 seconds (Paused)`, `Exited (0) 5 minutes ago`, `Created`.
pub(super) fn status(status: &Status, now: i64) -> String {
    match status {
        Status::Created => "Created".to_owned(),
        Status::Running { started_at, paused, .. } => {
            let pause = if *paused { " (Paused)" } else { "" };
            format!("Up {}{pause}", time::human(now.saturating_sub(*started_at)))
        }
        Status::Exited(exit) => format!("Exited ({}) {}", exit.exit_code, time::ago(now, exit.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use onggi_spec::monitor::ExitRecord;

    use super::*;

    #[test]
    fn states_are_said_as_docker_says_them() {
        let second = 1_000_000_000;
        let exit = ExitRecord { exit_code: 3, started_at: 1, finished_at: 100 * second, ..ExitRecord::default() };
        let now = 400 * second;
        assert_eq!(status(&Status::Created, now), "Created");
        let running = |paused| Status::Running { pid: 1, started_at: 397 * second, paused };
        assert_eq!(status(&running(false), now), "Up 3 seconds");
        assert_eq!(status(&running(true), now), "Up 3 seconds (Paused)");
        assert_eq!(status(&Status::Exited(exit), now), "Exited (3) 5 minutes ago");
    }

    #[test]
    fn a_size_is_what_was_written_and_that_with_the_image() {
        assert_eq!(size((0, 1_980_000)), "0B (virtual 1.98MB)");
        assert_eq!(size((0, 0)), "0B");
    }

    #[test]
    fn filters_reach_their_field() {
        let f = list_filter(&["status=exited".into(), "exited=3".into(), "label=a=b".into()], false).expect("parses");
        assert_eq!((f.status, f.exited, f.label), (vec!["exited".to_owned()], vec![3], vec!["a=b".to_owned()]));
        assert!(list_filter(&["exited=x".into()], false).is_err());
        assert!(list_filter(&["health=x".into()], false).is_err());
    }
}
