//! `onggi search`.

use clap::Args;
use onggi_engine::SearchHit;
use onggi_spec::ParseError;
use serde_json::{Value, json};

use super::filter;
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
    request::ChoiceArgs,
};

const FILTERS: [&str; 2] = ["stars", "is-official"];
/// Docker Hub's own bound.
const MOST: u64 = 100;
/// Tags that `--list-tags` shows without `--limit`, as Podman.
const TAGS: usize = 50;
/// Characters of a description without `--no-trunc`, as Docker.
const SHOWN: usize = 45;

const COLUMNS: Columns = Columns {
    headers: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
        ("Index", "INDEX"),
    ],
    default: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
};

const TAG_COLUMNS: Columns = Columns { headers: &[("Name", "NAME"), ("Tag", "TAG")], default: "{{.Name}}\t{{.Tag}}" };

/// Arguments of `search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Only those that match: stars=NUMBER, is-official=BOOL
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
    /// Most results [default: 25]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// The tags of a repository
    #[arg(long, conflicts_with = "filter")]
    list_tags: bool,
    /// Do not shorten descriptions
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    registry: ChoiceArgs,
    /// What to look for, with or without a registry in front
    #[arg(value_name = "[HOST[:PORT]/]TERM")]
    term: String,
}

impl SearchArgs {
    /// Prints what is found.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let choice = self.registry.choice()?;
        let engine = global.engine()?;
        if self.list_tags {
            let limit = self.limit.map_or(TAGS, |n| usize::try_from(n).unwrap_or(usize::MAX));
            let list = engine.search_tags(&self.term, limit, &choice)?;
            let rows: Vec<Value> = list.tags.iter().map(|tag| json!({ "Name": list.name, "Tag": tag })).collect();
            render::stdout(&format::rows(self.format.as_deref(), &TAG_COLUMNS, &rows)?)?;
            return Ok(0);
        }
        let filters =
            filter::parse(&self.filter, &FILTERS)?.iter().map(Filter::parse).collect::<Result<Vec<_>, _>>()?;
        let limit = self.limit.unwrap_or(25);
        if limit > MOST {
            return Err(CliError::usage(format!("--limit {limit} is out of range"), format!("it is at most {MOST}")));
        }
        let hits = engine.search(&self.term, limit as usize, &choice)?;
        let hits = hits.iter().filter(|hit| filters.iter().all(|f| f.matches(hit)));
        let rows: Vec<Value> = hits.map(|hit| row(hit, self.no_trunc)).collect();
        render::stdout(&format::rows(self.format.as_deref(), &COLUMNS, &rows)?)?;
        Ok(0)
    }
}

enum Filter {
    Stars(u64),
    Official(bool),
}

impl Filter {
    fn parse((key, value): &(String, String)) -> Result<Self, ParseError> {
        let err = |reason| ParseError::new("filter", value, reason);
        match key.as_str() {
            "stars" => value.parse().map(Self::Stars).map_err(|_| err("stars is a number")),
            _ => value.parse().map(Self::Official).map_err(|_| err("is-official is true or false")),
        }
    }

    fn matches(&self, hit: &SearchHit) -> bool {
        match self {
            Self::Stars(least) => hit.found.star_count >= *least,
            Self::Official(wanted) => hit.found.is_official == *wanted,
        }
    }
}

fn row(hit: &SearchHit, full: bool) -> Value {
    let (registry, found) = (&hit.registry, &hit.found);
    let known = registry == "docker.io" || found.name.starts_with(&format!("{registry}/"));
    let name = if known { printable(&found.name) } else { format!("{registry}/{}", printable(&found.name)) };
    let description = printable(&found.description);
    let description = match description.char_indices().nth(SHOWN) {
        Some(_) if !full => format!("{}…", description.chars().take(SHOWN - 1).collect::<String>()),
        _ => description,
    };
    let yes = |b: bool| if b { "[OK]" } else { "" };
    json!({
        "Name": name, "Description": description, "StarCount": found.star_count,
        "IsOfficial": yes(found.is_official), "IsAutomated": yes(found.is_automated), "Index": registry,
    })
}

/// A stranger's text in one line of a terminal.
fn printable(text: &str) -> String {
    text.split_whitespace()
        .map(|w| w.chars().filter(|c| !c.is_control()).collect::<String>())
        .collect::<Vec<_>>()
        .join(" ")
}
