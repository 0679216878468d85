//! `registries.conf`, version 2 (containers-registries.conf(5)): mirrors, rewritten prefixes, blocked registries,
//! short names. Pure: texts in, decisions out; [`load`] is the one place that reads the files.
//!
//! ```text
//! $CONTAINERS_REGISTRIES_CONF                 alone, when it is set
//! $HOME/.config/containers/registries.conf    else this, or
//! /etc/containers/registries.conf             this; then, in the order of their names,
//! /etc/containers/registries.conf.d/*.conf
//! $HOME/.config/containers/registries.conf.d/*.conf
//! ```
//! A later file replaces a registry of the same prefix, an alias of the same name, and the list of search registries.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use onggi_spec::{ImageReference, ParseError, reference::DEFAULT_REGISTRY};
use serde::Deserialize;

/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// Most are smaller, and read at once.
const USUAL_FILE: usize = 8 << 10;
/// Most files of one `registries.conf.d`.
const MAX_DROP_INS: usize = 256;

/// A `registries.conf` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// It exists but cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not the TOML it should be.
    #[error("{} is malformed", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A rule of the format is broken.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The rule.
        reason: String,
    },
    /// The registry is blocked here.
    #[error("registry {prefix} is blocked by registries.conf")]
    Blocked {
        /// The prefix of the rule.
        prefix: String,
    },
    /// A rewritten name is no reference.
    #[error("registries.conf turns {from} into {to:?}")]
    Rewrite {
        /// What was asked for.
        from: String,
        /// What it became.
        to: String,
        /// Why that is none.
        #[source]
        source: Box<ParseError>,
    },
}

/// When a mirror may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct MirrorRule {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default, rename = "pull-from-mirror")]
    pull_from: PullFrom,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Rule {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default, rename = "mirror-by-digest-only")]
    by_digest_only: bool,
    #[serde(default, rename = "mirror")]
    mirrors: Vec<MirrorRule>,
}

#[derive(Debug, Default, Deserialize)]
struct Text {
    #[serde(default, rename = "unqualified-search-registries")]
    search: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<Rule>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Version 1 of the format.
    #[serde(default)]
    registries: Option<toml::Table>,
}

/// All files together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    rules: Vec<Rule>,
    /// Of each file that has some, in the order of the files.
    aliases: Vec<Aliases>,
    search: Vec<String>,
}

/// The short names of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Aliases {
    /// A text for which [`plain_aliases`] holds. Most commands never look one of them up.
    Plain(String),
    Parsed(BTreeMap<String, String>),
}

impl Aliases {
    fn get(&self, name: &str) -> Option<&str> {
        match self {
            Self::Plain(text) => {
                plain_lines(text).filter_map(plain_alias).find_map(|(other, target)| (other == name).then_some(target))
            }
            Self::Parsed(map) => map.get(name).map(String::as_str),
        }
    }
}

/// A place where an image is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The image's name there.
    pub reference: ImageReference,
    /// Certificates are not verified, and plain HTTP is allowed.
    pub insecure: bool,
}

/// Where an image is really kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Mirrors that may be asked for it, in order.
    pub mirrors: Vec<Place>,
    /// The registry itself, after rewriting.
    pub own: Place,
}

impl Rule {
    /// Fills in what is left out, and tells what containers/image refuses, too: a rule that never applies blocks nothing.
    fn check(&mut self) -> Result<(), String> {
        let mirrors = self.mirrors.iter_mut().map(|mirror| &mut mirror.location);
        [&mut self.prefix, &mut self.location].into_iter().chain(mirrors).try_for_each(without_scheme)?;
        let wildcard = self.prefix.starts_with("*.");
        if self.prefix.contains('*') && (!wildcard || self.prefix[1..].contains('*')) {
            return Err("a prefix may contain * only in front, as in *.example.com".to_owned());
        }
        match (self.prefix.is_empty(), self.location.is_empty()) {
            (true, true) => return Err("a [[registry]] has neither prefix nor location".to_owned()),
            (true, false) => self.prefix.clone_from(&self.location),
            (false, true) if !wildcard => {
                return Err(format!(
                    "location is unset and prefix is not in the format: *.example.com; add location = {:?}",
                    self.prefix
                ));
            }
            (false, _) => {}
        }
        match self.mirrors.iter().any(|mirror| mirror.location.is_empty()) {
            true => Err("a mirror has no location".to_owned()),
            false => Ok(()),
        }
    }
}

/// A place is a host, perhaps with a port and a path.
fn without_scheme(place: &mut String) -> Result<(), String> {
    if place.starts_with("http://") || place.starts_with("https://") {
        return Err(format!("invalid location {place:?}: URI schemes are not supported"));
    }
    place.truncate(place.trim_end_matches('/').len());
    Ok(())
}

impl RegistriesConf {
    /// Adds a file to what was read before.
    ///
    /// # Errors
    /// It is malformed; `path` is for the message.
    pub fn add(&mut self, text: impl Into<String>, path: &Path) -> Result<(), RegistriesError> {
        let text = text.into();
        let invalid = |reason: &str| RegistriesError::Invalid { path: path.to_owned(), reason: reason.to_owned() };
        if let Some(aliases) = plain_aliases(&text) {
            if !aliases.is_empty() {
                self.aliases.push(Aliases::Plain(text));
            }
            return Ok(());
        }
        let parsed: Text = toml::from_str(&text)
            .map_err(|source| RegistriesError::Malformed { path: path.to_owned(), source: Box::new(source) })?;
        if parsed.registries.is_some() {
            return Err(invalid(
                "version 1 of the format ([registries.search]) is not supported; see containers-registries.conf(5)",
            ));
        }
        for mut rule in parsed.registry {
            rule.check().map_err(|reason| invalid(&reason))?;
            self.rules.retain(|known| known.prefix != rule.prefix);
            self.rules.push(rule);
        }
        if let Some(mut search) = parsed.search {
            search.iter_mut().try_for_each(without_scheme).map_err(|reason| invalid(&reason))?;
            self.search = search;
        }
        self.aliases.push(Aliases::Parsed(parsed.aliases));
        Ok(())
    }

    /// The names that a name as the user wrote it may stand for, in order. One without registry is an alias, else is
    /// looked for in the search registries, else is Docker's.
    ///
    /// # Errors
    /// It is no reference, or an alias or search registry makes none of it.
    pub fn candidates(&self, text: &str) -> Result<Vec<ImageReference>, RegistriesError> {
        let parse = |to: String| {
            to.parse::<ImageReference>().map_err(|source| RegistriesError::Rewrite {
                from: text.to_owned(),
                to,
                source: Box::new(source),
            })
        };
        let own = parse(text.to_owned())?;
        if !is_short(text) {
            return Ok(vec![own]);
        }
        let name_end = text.find('@').unwrap_or(text.len());
        let name_end = text[..name_end].rfind(':').unwrap_or(name_end);
        let (name, suffix) = text.split_at(name_end);
        let alias = self.aliases.iter().rev().find_map(|aliases| aliases.get(name));
        if let Some(target) = alias.filter(|t| !t.is_empty()) {
            return Ok(vec![parse(format!("{target}{suffix}"))?]);
        }
        if self.search.is_empty() {
            return Ok(vec![own]);
        }
        let found = self.search.iter().map(|registry| match registry.as_str() {
            DEFAULT_REGISTRY => Ok(own.clone()),
            other => parse(format!("{other}/{text}")),
        });
        found.collect()
    }

    /// The search registries, as `search` uses them.
    pub fn search_registries(&self) -> &[String] {
        &self.search
    }

    /// Where to look for a reference.
    ///
    /// # Errors
    /// It is blocked, or a rule makes something of it that is no reference.
    pub fn places(&self, reference: &ImageReference) -> Result<Places, RegistriesError> {
        let text = reference.to_string();
        let found = self.rules.iter().filter_map(|rule| Some((matched(&text, &rule.prefix)?, rule)));
        // Of a host and a pattern that match as much, the host is the more specific.
        let best = found.max_by_key(|(length, rule)| (*length, !rule.prefix.starts_with('*'), rule.prefix.len()));
        let Some((length, rule)) = best else {
            return Ok(Places { mirrors: Vec::new(), own: Place { reference: reference.clone(), insecure: false } });
        };
        if rule.blocked {
            return Err(RegistriesError::Blocked { prefix: rule.prefix.clone() });
        }
        let rewrite = |location: &str| {
            let to = format!("{location}{}", &text[length..]);
            to.parse().map_err(|e| RegistriesError::Rewrite { from: text.clone(), to, source: Box::new(e) })
        };
        let own = if rule.location.is_empty() { reference.clone() } else { rewrite(&rule.location)? };
        let by_digest = reference.digest().is_some();
        let usable = |m: &&MirrorRule| match m.pull_from {
            _ if rule.by_digest_only => by_digest,
            PullFrom::All => true,
            PullFrom::DigestOnly => by_digest,
            PullFrom::TagOnly => !by_digest,
        };
        let mirrors = rule.mirrors.iter().filter(usable);
        let mirrors = mirrors.map(|m| Ok(Place { reference: rewrite(&m.location)?, insecure: m.insecure }));
        Ok(Places {
            mirrors: mirrors.collect::<Result<_, _>>()?,
            own: Place { reference: own, insecure: rule.insecure },
        })
    }
}

/// How many bytes of a full name a prefix covers; `None` when it is not one. `*.example.com` covers the host.
fn matched(name: &str, prefix: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let (host, _) = name.split_once('/')?;
        let bare = host.split(':').next()?;
        return (bare.ends_with(domain) && bare.len() > domain.len()).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(prefix.len())
}

/// A name whose first part is no host: Docker's rule.
fn is_short(text: &str) -> bool {
    match text.split_once('/') {
        None => true,
        Some((first, _)) => !first.contains(['.', ':']) && first != "localhost",
    }
}

/// The files that exist, in the order in which they are read.
///
/// # Errors
/// A directory of drop-ins cannot be listed.
pub fn files(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Vec<PathBuf>, RegistriesError> {
    let path = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(only) = path("CONTAINERS_REGISTRIES_CONF") {
        return Ok(vec![only]);
    }
    let user =
        path("XDG_CONFIG_HOME").or_else(|| path("HOME").map(|h| h.join(".config"))).map(|d| d.join("containers"));
    let system = PathBuf::from("/etc/containers");
    let mains = user.iter().chain([&system]).map(|d| d.join("registries.conf"));
    let mut found: Vec<PathBuf> = mains.filter(|p| p.exists()).take(1).collect();
    for dir in [Some(&system), user.as_ref()].into_iter().flatten() {
        found.extend(drop_ins(&dir.join("registries.conf.d"))?);
    }
    Ok(found)
}

fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, RegistriesError> {
    let fail = |source| RegistriesError::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(source) => return Err(fail(source)),
    };
    let mut found = Vec::new();
    for entry in entries.take(MAX_DROP_INS) {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|e| e == "conf") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Reads the files; nothing configured is Docker's behaviour.
///
/// # Errors
/// A file cannot be read or is malformed.
pub fn load(files: &[PathBuf]) -> Result<RegistriesConf, RegistriesError> {
    let mut conf = RegistriesConf::default();
    for path in files {
        let mut text = String::with_capacity(USUAL_FILE);
        let read = File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_string(&mut text));
        let length = read.map_err(|source| RegistriesError::Read { path: path.clone(), source })?;
        // What stands behind the bound may be what blocks a registry.
        if length as u64 > MAX_FILE {
            return Err(RegistriesError::Invalid { path: path.clone(), reason: "it is larger than 1 MiB".to_owned() });
        }
        conf.add(text, path)?;
    }
    Ok(conf)
}

/// The aliases, name and target, of what most machines have: nothing but comments, or a table of short names, some hundred
/// lines of the simplest kind. Reading those takes the whole parser longer than all else that a command does before it begins.
/// `None` for any other text.
fn plain_aliases(text: &str) -> Option<Vec<(&str, &str)>> {
    if has_control(text.as_bytes()) {
        return None;
    }
    let mut lines = plain_lines(text);
    match lines.next() {
        None => return Some(Vec::new()),
        Some("[aliases]") => {}
        Some(_) => return None,
    }
    let aliases: Vec<(&str, &str)> = lines.map(plain_alias).collect::<Option<_>>()?;
    let mut names: Vec<&str> = aliases.iter().map(|(name, _)| *name).collect();
    // Written in order, as a rule.
    if !names.is_sorted() {
        names.sort_unstable();
    }
    // A second one of the same name is an error, which the parser words.
    names.windows(2).all(|two| two[0] != two[1]).then_some(aliases)
}

/// Lines that say something.
fn plain_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').map(|line| line.trim_matches(' ')).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `"name" = "target"` without anything that would have to be interpreted.
fn plain_alias(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix('"')?.split_once('"')?;
    let target = rest.strip_prefix(" = \"")?.strip_suffix('"')?;
    (!target.contains('"') && !line.contains('\\')).then_some((name, target))
}

/// Whether there is a control character other than a line feed, looked for in eight bytes at once: every command that names an
/// image has all of these files looked through.
fn has_control(text: &[u8]) -> bool {
    const EACH: u64 = u64::MAX / 0xff;
    const LOW_BITS: u64 = EACH * 0x7f;
    // The highest bit of each byte that is zero, and nothing else: no byte carries into the next.
    let zero = |bytes: u64| !(((bytes & LOW_BITS) + LOW_BITS) | bytes | LOW_BITS);
    let (words, rest) = text.as_chunks::<8>();
    let found = words.iter().fold(0, |found, word| {
        let word = u64::from_le_bytes(*word);
        let low = !((word | !LOW_BITS) - EACH * 0x20) & !word & !LOW_BITS;
        found | (low & !zero(word ^ (EACH * u64::from(b'\n')))) | zero(word ^ LOW_BITS)
    });
    found != 0 || rest.iter().any(|byte| byte.is_ascii_control() && *byte != b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_aliases_are_what_the_parser_reads() {
        for text in [
            "",
            "# a comment\n\n   # another\n",
            "[aliases]\n",
            "# x\n[aliases]\n  # y\n  \"a\" = \"docker.io/library/a\"\n\"b/c\" = \"quay.io/b/c\"",
        ] {
            let parsed: Text = toml::from_str(text).unwrap();
            let found: Option<BTreeMap<_, _>> = plain_aliases(text).map(|found| found.into_iter().collect());
            let wanted = parsed.aliases.iter().map(|(name, target)| (name.as_str(), target.as_str())).collect();
            assert_eq!(found, Some(wanted), "{text}");
            assert!(parsed.search.is_none() && parsed.registry.is_empty());
        }
    }

    #[test]
    fn whatever_is_not_plain_is_left_to_the_parser() {
        for text in [
            "\"a\" = \"b\"",
            "[aliases]\n\"a\" = \"b\"\n\"a\" = \"c\"",
            "[aliases]\n\"a\" = \"b\" # why",
            "[aliases]\na = \"b\"",
            "[aliases]\n\"a\" = \"\\u0062\"",
            "[aliases]\n\"a\" = \"\"\"b\n\"\"\"",
            "[aliases]\n[aliases]\n",
            "unqualified-search-registries = [\"docker.io\"]",
            "[[registry]]\nlocation = \"r.example\"",
            "# \u{1}\n",
            "[aliases]\r\n\"a\" = \"b\"\r\n",
        ] {
            assert_eq!(plain_aliases(text), None, "{text}");
        }
        let twice = RegistriesConf::default().add("[aliases]\n\"a\" = \"b\"\n\"a\" = \"c\"", Path::new("/x"));
        assert!(matches!(twice, Err(RegistriesError::Malformed { .. })), "{twice:?}");
    }

    #[test]
    fn a_control_character_is_found_wherever_it_stands_and_nothing_else_is_one() {
        for byte in 0..=u8::MAX {
            for at in 0..18 {
                for neighbour in [b'a', b' ', b'\n', 0x80, 0xff, b'~'] {
                    let mut text = [neighbour; 18];
                    text[at] = byte;
                    let wanted = byte.is_ascii_control() && byte != b'\n';
                    assert_eq!(has_control(&text), wanted, "{byte:#x} at {at} beside {neighbour:#x}");
                }
            }
        }
    }

    fn conf(text: &str) -> RegistriesConf {
        let mut conf = RegistriesConf::default();
        conf.add(text, Path::new("registries.conf")).unwrap();
        conf
    }

    fn shown(conf: &RegistriesConf, name: &str) -> Vec<String> {
        let places = conf.places(&name.parse().unwrap()).unwrap();
        let show = |p: Place| format!("{}{}", p.reference, if p.insecure { " insecure" } else { "" });
        places.mirrors.into_iter().chain([places.own]).map(show).collect()
    }

    #[test]
    fn without_configuration_everything_is_where_its_name_says() {
        assert_eq!(shown(&RegistriesConf::default(), "nginx"), ["docker.io/library/nginx:latest"]);
        let names = RegistriesConf::default().candidates("nginx:1").unwrap();
        assert_eq!(names[0].to_string(), "docker.io/library/nginx:1");
    }

    #[test]
    fn mirrors_are_asked_in_order_and_only_for_what_they_may() {
        let conf = conf(
            r#"
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "one.example:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "two.example"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "three.example"
            pull-from-mirror = "tag-only"
            "#,
        );
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(
            shown(&conf, "nginx"),
            [
                "one.example:5000/hub/library/nginx:latest insecure",
                "three.example/library/nginx:latest",
                "docker.io/library/nginx:latest"
            ]
        );
        assert_eq!(
            shown(&conf, &format!("nginx@{digest}")),
            [
                format!("one.example:5000/hub/library/nginx@{digest} insecure"),
                format!("two.example/library/nginx@{digest}"),
                format!("docker.io/library/nginx@{digest}")
            ]
        );
    }

    #[test]
    fn the_longest_prefix_decides_and_is_replaced() {
        let conf = conf(
            r#"
            [[registry]]
            prefix = "*.example.com"
            insecure = true
            [[registry]]
            prefix = "a.example.com/team"
            location = "other.example/t"
            [[registry]]
            location = "bad.example"
            blocked = true
            "#,
        );
        assert_eq!(shown(&conf, "a.example.com/x/y:1"), ["a.example.com/x/y:1 insecure"]);
        assert_eq!(shown(&conf, "a.b.example.com:5000/x:1"), ["a.b.example.com:5000/x:1 insecure"]);
        assert_eq!(shown(&conf, "a.example.com/team/app:1"), ["other.example/t/app:1"]);
        assert_eq!(shown(&conf, "a.example.com/teams/app:1"), ["a.example.com/teams/app:1 insecure"]);
        assert_eq!(shown(&conf, "example.com/x:1"), ["example.com/x:1"]);
        let blocked = conf.places(&"bad.example/x".parse().unwrap()).unwrap_err();
        assert!(matches!(blocked, RegistriesError::Blocked { .. }));
        assert_eq!(shown(&conf, "bad.example.org/x:1"), ["bad.example.org/x:1"]);
    }

    #[test]
    fn short_names_are_aliases_or_searched_for() {
        let mut conf = conf(
            "unqualified-search-registries = [\"one.example\", \"docker.io\"]\n[aliases]\n\"fedora\" = \"registry.fedoraproject.org/fedora\"\n",
        );
        let names = |conf: &RegistriesConf, text: &str| -> Vec<String> {
            conf.candidates(text).unwrap().iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(&conf, "fedora:41"), ["registry.fedoraproject.org/fedora:41"]);
        assert_eq!(names(&conf, "team/app"), ["one.example/team/app:latest", "docker.io/team/app:latest"]);
        assert_eq!(names(&conf, "docker.io/library/fedora"), ["docker.io/library/fedora:latest"]);
        assert_eq!(names(&conf, "localhost/x"), ["localhost/x:latest"]);
        conf.add("[aliases]\n\"fedora\" = \"mine.example/f\"\n", Path::new("x")).unwrap();
        assert_eq!(names(&conf, "fedora"), ["mine.example/f:latest"]);
        conf.add("[aliases]\n\"fedora\" = \"\"\n", Path::new("x")).unwrap();
        assert_eq!(names(&conf, "fedora"), ["one.example/fedora:latest", "docker.io/library/fedora:latest"]);
    }

    #[test]
    fn a_later_file_replaces_the_same_prefix() {
        let mut conf = conf("[[registry]]\nlocation = \"a.example/\"\nblocked = true\n");
        conf.add("[[registry]]\nprefix = \"a.example\"\nlocation = \"b.example\"\n", Path::new("x")).unwrap();
        assert_eq!(shown(&conf, "a.example/x:1"), ["b.example/x:1"]);
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let bad = [
            "[[registry]]\n",
            "[[registry]]\nprefix = \"a.*.com\"\n",
            "[[registry]]\nprefix = \"a\"\n[[registry.mirror]]\nlocation = \"\"\n",
            "[[registry]]\nprefix = \"bad.example\"\nblocked = true\n",
            "[[registry]]\nlocation = \"https://bad.example\"\nblocked = true\n",
            "[[registry]]\nprefix = \"http://a\"\nlocation = \"a\"\n",
            "[[registry]]\nlocation = \"a\"\n[[registry.mirror]]\nlocation = \"https://b\"\n",
            "unqualified-search-registries = [\"https://a\"]\n",
            "[registries.search]\nregistries = ['docker.io']\n",
            "[[registry]]\nprefix = 3\n",
        ];
        for text in bad {
            assert!(RegistriesConf::default().add(text, Path::new("x")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        let rule = "[[registry]]\nlocation = \"bad.example\"\nblocked = true\n";
        for (length, read) in [(MAX_FILE, true), (MAX_FILE + 1, false)] {
            fs::write(&path, format!("#{}\n{rule}", "x".repeat(length as usize - rule.len() - 2))).unwrap();
            let conf = load(std::slice::from_ref(&path));
            assert_eq!(
                conf.is_ok_and(|conf| conf.places(&"bad.example/x".parse().unwrap()).is_err()),
                read,
                "{length}"
            );
        }
    }

    #[test]
    fn files_are_found_in_the_documented_order() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("containers");
        fs::create_dir_all(dir.join("registries.conf.d")).unwrap();
        for name in
            ["registries.conf", "registries.conf.d/b.conf", "registries.conf.d/a.conf", "registries.conf.d/no.txt"]
        {
            fs::write(dir.join(name), "").unwrap();
        }
        let env = |name: &str| (name == "XDG_CONFIG_HOME").then(|| home.path().as_os_str().to_owned());
        let found = files(&env).unwrap();
        let own: Vec<_> = found.iter().filter(|p| p.starts_with(&dir)).collect();
        assert_eq!(
            own,
            [
                &dir.join("registries.conf"),
                &dir.join("registries.conf.d/a.conf"),
                &dir.join("registries.conf.d/b.conf")
            ]
        );
        assert_eq!(found[0], dir.join("registries.conf"));
        let only = |name: &str| (name == "CONTAINERS_REGISTRIES_CONF").then(|| OsString::from("/x"));
        assert_eq!(files(&only).unwrap(), [PathBuf::from("/x")]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}", name in "[a-z0-9./:@-]{0,40}") {
            let mut conf = RegistriesConf::default();
            let _ = conf.add(text.as_str(), Path::new("x"));
            let _ = conf.candidates(&name);
        }
    }
}
