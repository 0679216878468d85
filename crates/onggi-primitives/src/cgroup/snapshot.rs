//! A tree of groups as a file, and back.
//!
//! The file is a cgconfig.conf(5), so that `cgconfigparser -l` and `cgsnapshot` speak it too:
//!
//! ```text
//! # onggi cgroup snapshot, cgroup v1          the version whose file names follow
//! group lab/web {                             a path below the root of the hierarchies
//!     perm { admin { uid = 0; gid = 0; } task { uid = 0; gid = 0; } }
//!     cpu { cpu.cfs_quota_us = "50000"; }     one section per controller, one line per limit
//!     unified { cgroup.max.depth = "4"; }     version 2 files that belong to no controller
//! }
//! ```
//!
//! Limits are kept, counters and processes are not. On a machine of the other version names are translated, and what
//! has no counterpart is left out with a note. `mount`, `default`, `template` and `namespace` of a cgconfig.conf are
//! skipped.

use std::collections::BTreeMap;

use onggi_spec::facts::CgroupLayout;

use super::{
    Devices, Group, GroupError, GroupFacts, GroupPlan, Offers, Op, Version, create_plan, owner_ops, places, plan_set,
    set::file_write,
};

/// Bytes of a snapshot that are read: a hundred thousand groups.
pub const MAX_SNAPSHOT: u64 = 64 << 20;

/// A group as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    /// Below the root.
    pub path: String,
    /// Owner and group of its directory.
    pub owner: Option<(u32, u32)>,
    /// Controllers, each with its files and their values.
    pub sections: Vec<(String, Vec<(String, String)>)>,
}

/// A tree of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose file names it has.
    pub version: Version,
    /// Parents before children.
    pub groups: Vec<Saved>,
}

/// Control files that are limits, by what their names begin and end with; `*` is anything between.
const LIMITS: &[&str] = &[
    "cpu.shares",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.cfs_burst_us",
    "cpu.idle",
    "cpu.weight",
    "cpu.max",
    "cpu.max.burst",
    "cpu.uclamp.min",
    "cpu.uclamp.max",
    "cpuset.cpus",
    "cpuset.mems",
    "cpuset.cpus.partition",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.swappiness",
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "memory.swap.high",
    "memory.swap.max",
    "memory.zswap.max",
    "memory.oom.group",
    "pids.max",
    "blkio.weight",
    "blkio.bfq.weight",
    "blkio.throttle.*_device",
    "io.weight",
    "io.bfq.weight",
    "io.max",
    "io.latency",
    "hugetlb.*.limit_in_bytes",
    "hugetlb.*.max",
    "rdma.max",
    "misc.max",
    "net_cls.classid",
    "cgroup.max.depth",
    "cgroup.max.descendants",
];

/// What a new group has anyway: not worth a note when there is no counterpart.
const DEFAULTS: &[(&str, &str)] = &[
    ("memory.swappiness", "60"),
    ("memory.high", "max"),
    ("memory.min", "0"),
    ("memory.oom.group", "0"),
    ("memory.zswap.max", "max"),
    ("memory.swap.high", "max"),
    ("memory.swap.max", "max"),
    ("cpu.uclamp.min", "0.00"),
    ("cpu.uclamp.max", "max"),
    ("cpu.idle", "0"),
    ("cpu.max.burst", "0"),
    ("cpu.cfs_burst_us", "0"),
    ("cpuset.cpus.partition", "member"),
    ("memory.limit_in_bytes", "9223372036854771712"),
    ("memory.memsw.limit_in_bytes", "9223372036854771712"),
    ("memory.soft_limit_in_bytes", "9223372036854771712"),
    ("cgroup.max.depth", "max"),
    ("cgroup.max.descendants", "max"),
    ("net_cls.classid", "0"),
    ("blkio.bfq.weight", "100"),
    ("io.bfq.weight", "default 100"),
    ("io.weight", "default 100"),
];

fn is_limit(file: &str) -> bool {
    let fits = |pattern: &&str| match pattern.split_once('*') {
        Some((start, end)) => file.starts_with(start) && file.ends_with(end) && !file.contains(".rsvd."),
        None => *pattern == file,
    };
    LIMITS.iter().any(fits)
}

/// What of a group is kept.
pub fn saved(path: &str, facts: &GroupFacts, owner: Option<(u32, u32)>) -> Saved {
    let mut sections: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for place in &facts.places {
        if let Some(first) = place.controllers.first() {
            sections.entry(first.clone()).or_default();
        }
    }
    let kept =
        |(name, file): &(&String, &super::facts::ControlFile)| file.writable && !file.text.is_empty() && is_limit(name);
    for (name, file) in facts.files.iter().filter(kept) {
        let first = facts.places.get(file.place).and_then(|place| place.controllers.first());
        let of_name = name.split('.').next().filter(|c| *c != "cgroup").unwrap_or("unified");
        let section = first.map_or(of_name, String::as_str);
        sections.entry(section.to_owned()).or_default().push((name.clone(), file.text.clone()));
    }
    Saved { path: path.to_owned(), owner, sections: sections.into_iter().collect() }
}

impl Snapshot {
    /// The file.
    pub fn text(&self) -> String {
        let mut out = format!("# onggi cgroup snapshot, cgroup {}\n", self.version.name());
        for group in &self.groups {
            out += &format!("\ngroup {} {{\n", quoted_if_needed(&group.path));
            if let Some((uid, gid)) = group.owner.filter(|owner| *owner != (0, 0)) {
                let ids = format!("uid = {uid}; gid = {gid};");
                out += &format!("    perm {{\n        admin {{ {ids} }}\n        task {{ {ids} }}\n    }}\n");
            }
            for (controller, files) in &group.sections {
                out += &format!("    {} {{\n", quoted_if_needed(controller));
                for (file, value) in files {
                    out += &format!("        {file} = {};\n", quoted(value));
                }
                out += "    }\n";
            }
            out += "}\n";
        }
        out
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, GroupError> {
        let mut reader = Reader { words: tokens(text)?, at: 0 };
        let mut groups = Vec::new();
        while let Some((line, word)) = reader.next() {
            match word.as_str() {
                "group" => groups.push(reader.group(line)?),
                "mount" | "default" | "namespace" => reader.skip_block(line)?,
                "template" => {
                    reader.next();
                    reader.skip_block(line)?;
                }
                other => return Err(wrong(line, &format!("expected group, found {other:?}"))),
            }
        }
        let names = || groups.iter().flat_map(|g| g.sections.iter()).flat_map(|(_, files)| files.iter());
        let says_v2 = text.lines().next().is_some_and(|line| line.ends_with("cgroup v2"));
        let looks_v2 =
            names().any(|(name, _)| ["cpu.max", "memory.max", "cpu.weight", "io.max"].contains(&name.as_str()));
        let version = if says_v2 || looks_v2 { Version::V2 } else { Version::V1 };
        Ok(Self { version, groups })
    }

    /// Plans the tree, below `prefix` where there is one.
    ///
    /// # Errors
    /// A group that cannot be here. Single limits that cannot be kept are notes.
    pub fn plan(&self, layout: &CgroupLayout, prefix: &str, offered: &Offers) -> Result<GroupPlan, GroupError> {
        let here = Version::of(layout);
        let mut all = GroupPlan::default();
        for saved in &self.groups {
            let mut group = saved.group(prefix);
            let known = if here == self.version { saved.controllers(layout) } else { Vec::new() };
            group.controllers = known;
            let places = places(layout, &group)?;
            // What the parents offer is settled by the first of them.
            let made = create_plan(layout, &group, &places, offered)?;
            for op in made.ops {
                if !all.ops.contains(&op) {
                    all.ops.push(op);
                }
            }
            all.notes.extend(made.notes);
            if let Some((uid, gid)) = saved.owner.filter(|owner| *owner != (0, 0)) {
                all.ops.extend(owner_ops(&places, here, Some(uid), Some(gid)));
            }
            let facts = GroupFacts { version: here, places, files: BTreeMap::new(), offers: Offers::new() };
            self.limits(saved, layout, &group, &facts, &mut all);
        }
        Ok(all)
    }

    fn limits(&self, saved: &Saved, layout: &CgroupLayout, group: &Group, facts: &GroupFacts, all: &mut GroupPlan) {
        let limits =
            || saved.sections.iter().flat_map(|(c, files)| files.iter().map(move |(file, value)| (c, file, value)));
        let limits = || limits().filter(|(_, file, _)| is_limit(file));
        if facts.version == self.version {
            let lines = limits().flat_map(|(c, file, value)| value.lines().map(move |line| (c, file, line)));
            let writes: Vec<_> = lines.filter_map(|(c, file, line)| file_write(facts, c, file, line)).collect();
            all.ops.extend((!writes.is_empty()).then_some(Op::Set { writes }));
            return;
        }
        let mut kept = Vec::new();
        for (_, file, value) in limits().filter(|(_, f, v)| !DEFAULTS.contains(&(f.as_str(), v.as_str()))) {
            for line in value.lines() {
                let one = (file.clone(), line.to_owned());
                match plan_set(layout, group, facts, std::slice::from_ref(&one), &Devices::new()) {
                    Ok(_) => kept.push(one),
                    Err(e) => all.notes.push(format!("{}: {file} is left out: {e}", saved.path)),
                }
            }
        }
        // Together: a quota and its period are one value on the other side.
        match plan_set(layout, group, facts, &kept, &Devices::new()) {
            Ok((plan, _)) => {
                all.ops.extend(plan.ops.into_iter().filter(|op| matches!(op, Op::Set { .. })));
                all.notes.extend(plan.notes);
            }
            Err(e) => all.notes.push(format!("{}: its limits are left out: {e}", saved.path)),
        }
    }
}

impl Saved {
    /// The group that it becomes below `prefix`.
    pub fn group(&self, prefix: &str) -> Group {
        let names = [prefix, &self.path].join("/");
        let names: Vec<&str> = names.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        Group { controllers: Vec::new(), path: names.join("/") }
    }

    /// Its controllers that this machine has.
    fn controllers(&self, layout: &CgroupLayout) -> Vec<String> {
        let has = |c: &str| match layout {
            CgroupLayout::V1 { hierarchies, .. } => {
                hierarchies.iter().any(|h| h.controllers.iter().any(|own| own == c))
            }
            CgroupLayout::V2 { controllers, .. } => controllers.iter().any(|own| own == c),
            CgroupLayout::None => false,
        };
        self.sections.iter().map(|(c, _)| c.clone()).filter(|c| has(c)).collect()
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn quoted_if_needed(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./,@".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) { text.to_owned() } else { quoted(text) }
}

fn wrong(line: usize, reason: &str) -> GroupError {
    GroupError::Snapshot { line, reason: reason.chars().take(200).collect() }
}

/// Words, strings and the signs `{ } = ;`, each with its line. A string is told from a sign by its mark.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, GroupError> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '{' | '}' | '=' | ';' => found.push((line, Token::Sign(c))),
            '"' => {
                let begun = line;
                let mut word = String::new();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') if chars.peek().is_some_and(|c| matches!(c, '"' | '\\')) => {
                            word.extend(chars.next())
                        }
                        Some(c) => {
                            line += usize::from(c == '\n');
                            word.push(c);
                        }
                        None => return Err(wrong(begun, "a string has no end")),
                    }
                }
                found.push((begun, Token::Word(word)));
            }
            c => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !"{}=;\"#".contains(*c)) {
                    word.push(c);
                }
                found.push((line, Token::Word(word)));
            }
        }
    }
    Ok(found)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(char),
}

struct Reader {
    words: Vec<(usize, Token)>,
    at: usize,
}

impl Reader {
    /// The next word; a sign in its place is told as one.
    fn next(&mut self) -> Option<(usize, String)> {
        let (line, token) = self.words.get(self.at)?.clone();
        self.at += 1;
        Some(match token {
            Token::Word(word) => (line, word),
            Token::Sign(sign) => (line, sign.to_string()),
        })
    }

    fn is_sign(&self, sign: char) -> bool {
        self.words.get(self.at).is_some_and(|(_, token)| *token == Token::Sign(sign))
    }

    fn expect(&mut self, sign: char, line: usize) -> Result<(), GroupError> {
        if self.is_sign(sign) {
            self.at += 1;
            return Ok(());
        }
        let line = self.words.get(self.at).map_or(line, |(line, _)| *line);
        Err(wrong(line, &format!("expected {sign}")))
    }

    fn word(&mut self, line: usize, what: &str) -> Result<String, GroupError> {
        match self.words.get(self.at) {
            Some((_, Token::Word(word))) => {
                self.at += 1;
                Ok(word.clone())
            }
            other => Err(wrong(other.map_or(line, |(line, _)| *line), &format!("expected {what}"))),
        }
    }

    fn skip_block(&mut self, line: usize) -> Result<(), GroupError> {
        self.expect('{', line)?;
        let mut depth = 1;
        while depth > 0 {
            match self.words.get(self.at).map(|(_, token)| token) {
                Some(Token::Sign('{')) => depth += 1,
                Some(Token::Sign('}')) => depth -= 1,
                Some(_) => {}
                None => return Err(wrong(line, "a block has no end")),
            }
            self.at += 1;
        }
        Ok(())
    }

    fn group(&mut self, line: usize) -> Result<Saved, GroupError> {
        let path = self.word(line, "the name of a group")?;
        if path.split('/').any(|name| name == "..") || path.bytes().any(|b| b < b' ') {
            return Err(wrong(line, "the name of a group must not lead upwards"));
        }
        let mut saved = Saved { path, ..Saved::default() };
        self.expect('{', line)?;
        while !self.is_sign('}') {
            let name = self.word(line, "a controller or }")?;
            match name.as_str() {
                "perm" => saved.owner = self.permissions(line)?,
                _ => {
                    let files = self.settings(line)?;
                    saved.sections.push((name, files));
                }
            }
        }
        self.at += 1;
        Ok(saved)
    }

    /// `{ name = value; … }`
    fn settings(&mut self, line: usize) -> Result<Vec<(String, String)>, GroupError> {
        let mut found = Vec::new();
        self.expect('{', line)?;
        while !self.is_sign('}') {
            let name = self.word(line, "a setting or }")?;
            self.expect('=', line)?;
            let value = self.word(line, "a value")?;
            self.expect(';', line)?;
            found.push((name, value));
        }
        self.at += 1;
        Ok(found)
    }

    /// The numbers of `admin`; names of users are not looked up.
    fn permissions(&mut self, line: usize) -> Result<Option<(u32, u32)>, GroupError> {
        let mut owner = None;
        self.expect('{', line)?;
        while !self.is_sign('}') {
            let who = self.word(line, "admin, task or }")?;
            let settings = self.settings(line)?;
            let number = |key: &str| settings.iter().find(|(k, _)| k == key).and_then(|(_, v)| v.parse().ok());
            if who == "admin" {
                owner = number("uid").map(|uid| (uid, number("gid").unwrap_or(0)));
            }
        }
        self.at += 1;
        Ok(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::group::tests::{hybrid, v2},
        *,
    };

    fn example() -> Snapshot {
        let cpu =
            vec![("cpu.cfs_quota_us".to_owned(), "50000".to_owned()), ("cpu.cfs_period_us".into(), "100000".into())];
        let memory =
            vec![("memory.limit_in_bytes".to_owned(), "1048576".to_owned()), ("memory.swappiness".into(), "10".into())];
        let sections = vec![("cpu".to_owned(), cpu), ("memory".to_owned(), memory)];
        let groups = vec![
            Saved { path: "lab".into(), owner: Some((7, 8)), sections: Vec::new() },
            Saved { path: "lab/a b".into(), owner: None, sections },
        ];
        Snapshot { version: Version::V1, groups }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = example().text();
        assert!(text.contains("group \"lab/a b\" {\n    cpu {\n        cpu.cfs_quota_us = \"50000\";"), "{text}");
        assert_eq!(Snapshot::parse(&text).expect("parse"), example());
    }

    #[test]
    fn a_cgconfig_of_others_is_read_and_errors_name_the_line() {
        let text = "mount { cpu = /c; }\n# x\ngroup a { perm { task { uid = root; } admin { uid = 5; gid = 6; } }\n cpu { cpu.max = \"max\n100000\"; } }";
        let found = Snapshot::parse(text).expect("parse");
        assert_eq!((found.version, found.groups[0].owner), (Version::V2, Some((5, 6))));
        for (text, line) in
            [("group a {\n cpu {\n x = 1 }", 3), ("nonsense", 1), ("group ../x {}", 1), ("group a {\n\"", 2)]
        {
            match Snapshot::parse(text) {
                Err(GroupError::Snapshot { line: found, .. }) => assert_eq!(found, line, "{text}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_tree_of_version_1_is_made_on_version_2_with_a_note_for_what_it_lacks() {
        let plan = example().plan(&v2(), "back", &BTreeMap::new()).expect("plan");
        let words = plan.words();
        assert!(words.contains("mkdir(2) /c/back/lab/a b"), "{words}");
        assert!(words.contains("write \"50000 100000\" to /c/back/lab/a b/cpu.max"), "{words}");
        assert!(words.contains("write \"1048576\" to /c/back/lab/a b/memory.max"), "{words}");
        assert!(plan.notes.len() == 1 && plan.notes[0].contains("memory.swappiness is left out"), "{:?}", plan.notes);
        let same = example().plan(&hybrid(), "", &BTreeMap::new()).expect("plan").words();
        assert!(same.contains("write \"10\" to /c/memory/lab/a b/memory.swappiness"), "{same}");
    }

    proptest::proptest! {
        #[test]
        fn files_of_any_content_never_panic(text in "(group|mount|perm|admin|[a-z.]{1,4}|[{}=;\"#\n\\\\ ]){0,40}") {
            let _ = Snapshot::parse(&text).map(|s| s.text());
        }
    }
}
