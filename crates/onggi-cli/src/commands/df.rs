//! `onggi system df`.

use clap::Args;
use onggi_engine::{DiskUsage, Engine};
use onggi_spec::quantity::human_size;
use serde_json::{Value, json};

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

const SUMMARY: Columns = Columns {
    headers: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    default: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
};

const IMAGES: Columns = Columns {
    headers: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
    default: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
};

const CONTAINERS: Columns = Columns {
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
    ],
    default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
};

const VOLUMES: Columns = Columns {
    headers: &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")],
    default: "{{.Name}}\t{{.Links}}\t{{.Size}}",
};

const CACHE: Columns = Columns {
    headers: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
    ],
    default: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
};

/// Arguments of `system df`.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Each image and container
    #[arg(short, long)]
    verbose: bool,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
}

impl DfArgs {
    /// Prints what the store occupies.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine: Engine = global.engine()?;
        let usage = engine.disk_usage()?;
        let text = match (self.verbose, self.format.as_deref()) {
            (false, format) => format::rows(format, &SUMMARY, &summary(&usage))?,
            (true, None | Some("" | "table")) => verbose_text(&usage)?,
            (true, format) => format::one(format, &verbose(&usage))?,
        };
        render::stdout(&text)?;
        Ok(0)
    }
}

fn summary(usage: &DiskUsage) -> Vec<Value> {
    let active = usage.images.iter().filter(|image| image.summary.containers > 0).count();
    let (running, stopped): (Vec<_>, Vec<_>) = usage.containers.iter().partition(|(c, _)| c.status.is_running());
    let bytes = |list: &[&(onggi_engine::ContainerSummary, u64)]| list.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let (busy, idle) = (bytes(&running), bytes(&stopped));
    vec![
        line("Images", usage.images.len(), active, usage.image_bytes, Some(usage.reclaimable)),
        line("Containers", usage.containers.len(), running.len(), busy + idle, Some(idle)),
        line("Local Volumes", 0, 0, 0, Some(0)),
        line("Build Cache", 0, 0, 0, None),
    ]
}

/// Docker shows a share except where there is nothing, and never for the build cache.
fn line(kind: &str, total: usize, active: usize, size: u64, reclaimable: Option<u64>) -> Value {
    let reclaimable = match reclaimable {
        Some(bytes) if size > 0 => format!("{} ({}%)", human_size(bytes), u128::from(bytes) * 100 / u128::from(size)),
        bytes => human_size(bytes.unwrap_or(0)),
    };
    json!({
        "Type": kind, "TotalCount": total.to_string(), "Active": active.to_string(), "Size": human_size(size),
        "Reclaimable": reclaimable,
    })
}

fn verbose(usage: &DiskUsage) -> Value {
    json!({ "Images": images(usage), "Containers": containers(usage), "Volumes": [], "BuildCache": [] })
}

fn verbose_text(usage: &DiskUsage) -> Result<String, CliError> {
    let table = |columns: &Columns, rows: &[Value]| format::rows(None, columns, rows);
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\n\
         Build cache usage: 0B\n\n{}",
        table(&IMAGES, &images(usage))?,
        table(&CONTAINERS, &containers(usage))?,
        table(&VOLUMES, &[])?,
        table(&CACHE, &[])?,
    ))
}

fn images(usage: &DiskUsage) -> Vec<Value> {
    let now = time::now();
    let row = |image: &onggi_engine::ImageUsage| {
        let record = &image.summary.record;
        let none = || "<none>".to_owned();
        let name = record.name.as_ref();
        json!({
            "Repository": name.map_or_else(none, |n| n.familiar_name()),
            "Tag": name.and_then(|n| n.tag()).map_or_else(none, str::to_owned),
            "ID": record.config_digest.short(),
            "CreatedSince": time::ago(now, record.created),
            "Size": human_size(image.shared + image.unique),
            "SharedSize": human_size(image.shared),
            "UniqueSize": human_size(image.unique),
            "Containers": image.summary.containers.to_string(),
        })
    };
    usage.images.iter().map(row).collect()
}

fn containers(usage: &DiskUsage) -> Vec<Value> {
    let now = time::now();
    let row = |(container, bytes): &(onggi_engine::ContainerSummary, u64)| {
        let record = &container.record;
        json!({
            "ID": record.id.short(),
            "Image": super::ps::image(container, false),
            "Command": format!("\"{}\"", printable(&ellipsis(&record.command.join(" "), 20)).replace('"', "\\\"")),
            "LocalVolumes": "0",
            "Size": human_size(*bytes),
            "RunningFor": time::ago(now, record.created_at),
            "Status": super::ps::status(&container.status, now),
            "Names": record.name.as_str(),
        })
    };
    usage.containers.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shown_where_there_is_something() {
        assert_eq!(line("Images", 2, 1, 2000, Some(500))["Reclaimable"], "500B (25%)");
        assert_eq!(line("Images", 0, 0, 0, Some(0))["Reclaimable"], "0B");
        assert_eq!(line("Build Cache", 0, 0, 0, None)["Reclaimable"], "0B");
    }
}
