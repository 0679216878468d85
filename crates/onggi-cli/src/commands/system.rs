//! `onggi system df`, `prune`, `check`, and `prune` of containers and images.

use std::io::{BufRead as _, Write as _};

use clap::Args;
use onggi_engine::{CheckReport, Engine, Finding, PruneFilter, Pruned, VerbOp, VerbPlan, ago};
use onggi_spec::{ParseError, quantity::human_size};

use super::explain::ExplainArg;
use super::filter;
use crate::{cli::GlobalArgs, error::CliError, render, request};

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// Arguments of `system prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// All unused images, not only those without a name
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    common: CommonArgs,
    /// Also anonymous volumes that no container uses
    #[arg(long)]
    volumes: bool,
}

/// Arguments of `image prune`.
#[derive(Debug, Args)]
pub(crate) struct ImagePruneArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// All unused images, not only those without a name
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    common: CommonArgs,
}

/// Arguments of `container prune`.
#[derive(Debug, Args)]
pub(crate) struct ContainerPruneArgs {
    #[command(flatten)]
    explain: ExplainArg,
    #[command(flatten)]
    common: CommonArgs,
}

/// Arguments of every prune.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// Only what matches: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl CommonArgs {
    /// The filter, once the user agrees; `None` when not.
    fn agreed(&self, warning: &str) -> Result<Option<PruneFilter>, CliError> {
        let filter = prune_filter(&self.filter)?;
        if self.force || ask(warning)? { Ok(Some(filter)) } else { Ok(None) }
    }
}

impl PruneArgs {
    /// Removes what is not used.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let plan = || {
            let (engine, filter) = (global.engine()?, prune_filter(&self.common.filter)?);
            let plans = [engine.explain_prune_containers(&filter)?, engine.explain_prune_images(self.all, &filter)?];
            Ok(plans.into_iter().chain(traces()).collect())
        };
        if let Some(code) = self.explain.show(plan)? {
            return Ok(code);
        }
        let images = match self.all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        let volumes = if self.volumes { "  - all anonymous volumes not used by at least one container\n" } else { "" };
        let warning = format!("WARNING! This will remove:\n  - all stopped containers\n{volumes}  - {images}\n\n");
        let Some(filter) = self.common.agreed(&warning)? else { return Ok(0) };
        let engine = global.engine()?;
        let containers = engine.prune_containers(&filter)?;
        let images = engine.prune_images(self.all, &filter)?;
        // Who may not look at traces has none to remove.
        let _ = onggi_primitives::clear_left_traces();
        report(&Pruned {
            reclaimed: containers.reclaimed + images.reclaimed,
            containers: containers.containers,
            ..images
        })
    }
}

/// What is done to the traces that killed programs have left.
fn traces() -> Option<VerbPlan> {
    let left = onggi_primitives::left_traces().ok().filter(|left| !left.names.is_empty())?;
    let remove = |name: &String| VerbOp::Run {
        args: ["rmdir".to_owned(), format!("/sys/kernel/tracing/instances/{name}")].into(),
        what: "whoever made this trace was killed; one that is read all the same stays".to_owned(),
    };
    let operations = left.names.iter().map(remove).collect();
    Some(VerbPlan { title: "remove traces that nobody reads".to_owned(), operations, ..VerbPlan::default() })
}

impl ImagePruneArgs {
    /// Removes images that are not used.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let plan = || {
            let filter = prune_filter(&self.common.filter)?;
            Ok(vec![global.engine()?.explain_prune_images(self.all, &filter)?])
        };
        if let Some(code) = self.explain.show(plan)? {
            return Ok(code);
        }
        let warning = match self.all {
            true => "WARNING! This will remove all images without at least one container associated to them.\n",
            false => "WARNING! This will remove all dangling images.\n",
        };
        let Some(filter) = self.common.agreed(warning)? else { return Ok(0) };
        report(&global.engine()?.prune_images(self.all, &filter)?)
    }
}

impl ContainerPruneArgs {
    /// Removes containers that do not run.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let plan = || {
            let filter = prune_filter(&self.common.filter)?;
            Ok(vec![global.engine()?.explain_prune_containers(&filter)?])
        };
        if let Some(code) = self.explain.show(plan)? {
            return Ok(code);
        }
        let Some(filter) = self.common.agreed("WARNING! This will remove all stopped containers.\n")? else {
            return Ok(0);
        };
        report(&global.engine()?.prune_containers(&filter)?)
    }
}

/// Asks as Docker does; anything but yes is no.
fn ask(warning: &str) -> Result<bool, CliError> {
    render::stdout(&format!("{warning}Are you sure you want to continue? [y/N] "))?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Docker's report.
fn report(pruned: &Pruned) -> Result<u8, CliError> {
    let mut text = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("{title}\n{}\n\n", lines.join("\n")));
        }
    };
    section("Deleted Containers:", pruned.containers.iter().map(ToString::to_string).collect());
    let untagged = pruned.untagged.iter().map(|name| format!("untagged: {}", name.familiar()));
    let deleted = pruned.deleted.iter().map(|id| format!("deleted: {id}"));
    section("Deleted Images:", untagged.chain(deleted).collect());
    text.push_str(&format!("Total reclaimed space: {}\n", human_size(pruned.reclaimed)));
    render::stdout(&text)?;
    Ok(0)
}

fn prune_filter(texts: &[String]) -> Result<PruneFilter, ParseError> {
    let mut out = PruneFilter::default();
    let label = |value: &str| match value.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (value.to_owned(), None),
    };
    for text in texts {
        match text.strip_prefix("label!=") {
            Some(value) => out.without.push(label(value)),
            None => match filter::parse(std::slice::from_ref(text), &["until", "label"])?.remove(0) {
                (key, value) if key == "until" => out.until = Some(moment(&value)?),
                (_, value) => out.with.push(label(&value)),
            },
        }
    }
    Ok(out)
}

/// A time as Docker's `until` takes it: `24h`, `1h30m`, seconds since 1970, or RFC 3339.
pub(super) fn moment(text: &str) -> Result<i64, ParseError> {
    let wrong = || {
        ParseError::new("time", text, "it is neither a duration nor a time")
            .hint("write 24h, 1h30m, 2026-01-31T12:00:00Z, or seconds since 1970")
    };
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(SECOND).ok_or_else(wrong);
    }
    if let Some(duration) = duration(text) {
        return Ok(ago(duration));
    }
    let date = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time: jiff::Timestamp = date.parse().map_err(|_| wrong())?;
    i64::try_from(time.as_nanosecond()).map_err(|_| wrong())
}

/// Go's durations in whole units.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut sum = 0i64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "h" => 3600 * SECOND,
            "m" => 60 * SECOND,
            "s" => SECOND,
            "ms" => SECOND / 1000,
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(scale)?)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(sum)
}

/// Arguments of `system check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Remove what is damaged or belongs to nothing, and fetch what is missing
    #[arg(long)]
    repair: bool,
    /// Only the exit code
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    options: request::RegistryArgs,
}

impl CheckArgs {
    /// Verifies the store; 1 when something stays wrong.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine: Engine = global.engine()?;
        if let Some(code) = self.explain.show(|| Ok(vec![engine.explain_repair()?]))? {
            return Ok(code);
        }
        let report = match self.repair {
            true => engine.repair(&self.options.options()?, &onggi_spec::progress::Silent)?,
            false => engine.check()?,
        };
        if !self.quiet {
            render::stdout(&check_text(&report))?;
        }
        Ok(u8::from(!report.is_sound()))
    }
}

fn check_text(report: &CheckReport) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        let line = match finding {
            Finding::BlobDamaged(id) => format!("damaged: blob {id}"),
            Finding::BlobMissing(id) => format!("missing: blob {id}"),
            Finding::BlobOrphan(id) => format!("orphan: blob {id}"),
            Finding::LayerDamaged(id, names) => format!("damaged: layer {id}: {}", names.join(" ")),
            Finding::LayerMissing(id) => format!("missing: layer {id}"),
            Finding::LayerOrphan(id) => format!("orphan: layer {id}"),
            Finding::MountLost(id, path) => format!("gone: mount of image {} on {}", id.short(), path.display()),
            Finding::ContainerLost(name) => {
                format!("gone: container {name}: its files are gone: remove it with `onggi rm {name}`")
            }
            Finding::ContainerOrphan(id) => format!("orphan: container {id}"),
            Finding::Stranger(path) => format!("orphan: {}: it is none of Onggi's and stays", path.display()),
            Finding::LayerUnrecorded(id) => format!("not verifiable: layer {id} was unpacked by an older version"),
        };
        out.push_str(&format!("{line}\n"));
    }
    out.extend(report.repaired.iter().map(|name| format!("repaired: {name}\n")));
    out.extend(report.left.iter().map(|why| format!("not repaired: {why}\n")));
    out.push_str(&format!("{} blobs and {} layers checked", report.blobs, report.layers));
    out.push_str(if report.is_sound() { ": everything is sound\n" } else { "\n" });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dockers() {
        assert_eq!(duration("1h30m"), Some(5400 * SECOND));
        assert_eq!(duration("10ms"), Some(SECOND / 100));
        assert_eq!(moment("1700000000").unwrap(), 1_700_000_000 * SECOND);
        assert_eq!(moment("1970-01-02").unwrap(), 86_400 * SECOND);
        assert_eq!(moment("1970-01-01T00:00:01Z").unwrap(), SECOND);
        for bad in ["", "h", "1x", "yesterday", "99999999999999999999"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_take_labels_both_ways() {
        let texts = ["label=a", "label!=b=c"].map(str::to_owned);
        let filter = prune_filter(&texts).unwrap();
        assert_eq!(filter.with, [("a".to_owned(), None)]);
        assert_eq!(filter.without, [("b".to_owned(), Some("c".to_owned()))]);
        assert!(prune_filter(&["dangling=true".to_owned()]).is_err());
    }
}
