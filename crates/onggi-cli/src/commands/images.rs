//! `onggi images`.

use std::collections::HashSet;

use clap::{Args, ValueEnum};
use onggi_engine::ImageSummary;
use onggi_spec::{Digest, ParseError, quantity::human_size};
use serde_json::{Value, json};

use super::{filter, system::moment};
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
        time,
    },
};

const NONE: &str = "<none>";
const FILTERS: [&str; 6] = ["reference", "label", "dangling", "before", "since", "until"];

const COLUMNS: Columns = Columns {
    headers: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Containers", "CONTAINERS"),
        ("VirtualSize", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
    ],
    default: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
};

const WITH_DIGESTS: &str = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

/// Arguments of `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// All of them (there are no hidden ones)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only those that match: reference, label, dangling, before, since, until
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// In the order of this field, as Podman [default: newest first]
    #[arg(long, value_name = "FIELD")]
    sort: Option<Field>,
    /// Leave out the names of the columns
    #[arg(short, long)]
    noheading: bool,
    /// Only this repository, with or without a tag
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
}

/// What images are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Field {
    /// Newest first
    Created,
    Id,
    Repository,
    Size,
    Tag,
}

impl ImagesArgs {
    /// Prints the list.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let mut filters = filter::parse(&self.filter, &FILTERS)?;
        filters.extend(self.repository.map(|r| ("reference".to_owned(), r)));
        filters.iter().try_for_each(|(key, value)| check(key, value))?;
        let now = time::now();
        let mut rows = Vec::new();
        let engine = global.engine()?;
        for (_, value) in filters.iter_mut().filter(|(key, _)| matches!(key.as_str(), "before" | "since")) {
            *value = engine.image_created(value)?.to_string();
        }
        for (_, value) in filters.iter_mut().filter(|(key, _)| key == "until") {
            *value = moment(value)?.to_string();
        }
        let by_label = filters.iter().any(|(key, _)| key == "label");
        let mut images = if by_label { engine.images()? } else { engine.images_without_labels()? };
        self.sort.into_iter().for_each(|field| sort(&mut images, field));
        let tagged = tagged(&images);
        for image in images {
            if came_along(&image, &tagged, self.digests) {
                continue;
            }
            if filters.iter().all(|(key, value)| matches(&image, key, value)) {
                rows.push(row(&image, now, self.no_trunc));
            }
        }
        if self.quiet {
            rows.dedup_by(|a, b| a["ID"] == b["ID"]);
        }
        let format = match (self.quiet, self.digests, self.format.as_deref()) {
            (true, ..) => Some("{{.ID}}"),
            (_, true, None) => Some(WITH_DIGESTS),
            (.., own) => own,
        };
        let text = format::rows(format, &COLUMNS, &rows)?;
        render::stdout(&if self.noheading { format::without_heading(format, text) } else { text })?;
        Ok(0)
    }
}

fn sort(images: &mut [ImageSummary], field: Field) {
    match field {
        // Their own order.
        Field::Created => {}
        Field::Id => images.sort_by(|a, b| a.record.config_digest.cmp(&b.record.config_digest)),
        Field::Repository => images.sort_by_key(names),
        Field::Size => images.sort_by_key(|image| image.record.size),
        Field::Tag => images.sort_by_key(|image| names(image).1),
    }
}

fn check(key: &str, value: &str) -> Result<(), ParseError> {
    match (key, value) {
        ("dangling", "true" | "false") => Ok(()),
        ("dangling", _) => Err(ParseError::new("filter", value, "dangling is true or false")),
        _ => Ok(()),
    }
}

fn matches(image: &ImageSummary, key: &str, value: &str) -> bool {
    let (repository, tag) = names(image);
    match key {
        "before" | "until" => value.parse().is_ok_and(|time| image.record.created < time),
        "since" => value.parse().is_ok_and(|time| image.record.created > time),
        "dangling" => image.record.name.is_none() == (value == "true"),
        "label" => match value.split_once('=') {
            Some((k, v)) => image.labels.get(k).is_some_and(|own| own == v),
            None => image.labels.contains_key(value),
        },
        _ => glob(value, &repository) || glob(value, &format!("{repository}:{tag}")),
    }
}

/// Shell-like: `*` is any run of characters but `/`, `?` one of them. Quadratic at worst.
fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let mut reachable = vec![false; t.len() + 1];
    reachable[0] = true;
    for c in p {
        let mut next = vec![false; t.len() + 1];
        for i in 0..=t.len() {
            let step = i > 0 && reachable[i - 1];
            next[i] = match c {
                '*' => reachable[i] || (i > 0 && next[i - 1] && t[i - 1] != '/'),
                '?' => step && t[i - 1] != '/',
                c => step && t[i - 1] == c,
            };
        }
        reachable = next;
    }
    reachable[t.len()]
}

/// Images under tags: id, repository and digest.
type Tagged = HashSet<(Digest, String, Digest)>;

fn tagged(images: &[ImageSummary]) -> Tagged {
    let key = |image: &ImageSummary| {
        let name = image.record.name.as_ref().filter(|name| name.tag().is_some())?;
        let (id, manifest) = (image.record.config_digest.clone(), image.record.manifest_digest.clone());
        Some((id, name.familiar_name(), manifest))
    };
    images.iter().filter_map(key).collect()
}

/// A digest beside a tag of the same repository has no line of its own, as with Docker; with `--digests` it has one where it is
/// not that of the tag.
fn came_along(image: &ImageSummary, tagged: &Tagged, digests: bool) -> bool {
    let Some(name) = image.record.name.as_ref().filter(|name| name.tag().is_none()) else { return false };
    let (id, manifest) = (&image.record.config_digest, &image.record.manifest_digest);
    let repository = name.familiar_name();
    tagged.iter().any(|(i, r, m)| i == id && *r == repository && (!digests || m == manifest))
}

fn names(image: &ImageSummary) -> (String, String) {
    let none = || NONE.to_owned();
    match &image.record.name {
        Some(name) => (name.familiar_name(), name.tag().map_or_else(none, str::to_owned)),
        None => (none(), none()),
    }
}

fn row(image: &ImageSummary, now: i64, full: bool) -> Value {
    let r = &image.record;
    let (repository, tag) = names(image);
    json!({
        "Repository": repository,
        "Tag": tag,
        "Digest": r.manifest_digest.as_str(),
        "ID": if full { r.config_digest.as_str() } else { r.config_digest.short() },
        "CreatedSince": time::ago(now, r.created),
        "CreatedAt": time::local(r.created),
        "Size": human_size(r.size),
        "VirtualSize": human_size(r.size),
        "Containers": image.containers.to_string(),
        // Docker has them in `system df -v` only, too.
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_a_shell_does() {
        for (pattern, text, want) in [
            ("nginx", "nginx", true),
            ("ngin?", "nginx", true),
            ("n*x", "nginx", true),
            ("*", "user/app", false),
            ("*/*", "user/app", true),
            ("nginx:*", "nginx:latest", true),
            ("", "nginx", false),
            ("nginxx", "nginx", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }
}
