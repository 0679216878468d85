//! `onggi inspect --kernel`: everything that the kernel tells of a container, on one page.

use onggi_primitives::kernel::{CgroupView, Filters, KernelPage, MountLine, SeccompView, kernel_page};
use onggi_spec::capability;
use serde_json::{Value, json};

use super::subject;
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self, format,
        table::{align, printable},
    },
};

/// Names of calls that are shown of one verdict; `--format json` has all.
const NAMES: usize = 12;

/// Prints the page of each name.
pub(super) fn run(
    names: &[String],
    template: Option<&str>,
    filters: Filters,
    global: &GlobalArgs,
) -> Result<u8, CliError> {
    let mut pages = Vec::new();
    for name in names {
        pages.push((name, kernel_page(subject::pid(name, global)?, filters)?));
    }
    let text = match template {
        None => pages.iter().map(|(name, page)| words(name, page)).collect::<Vec<_>>().join("\n"),
        Some(template) => {
            let values = pages.iter().map(|(_, page)| data(page)).collect::<Result<Vec<Value>, _>>()?;
            values.iter().map(|value| format::one(Some(template), value)).collect::<Result<String, _>>()?
        }
    };
    render::stdout(&text)?;
    Ok(0)
}

/// The page as JSON, each section with the command that shows it by hand.
fn data(page: &KernelPage) -> Result<Value, CliError> {
    let mut value = serde_json::to_value(page)?;
    let by_hand: Value = SECTIONS.iter().map(|(name, command)| ((*name).to_owned(), json!(command(page)))).collect();
    value["by_hand"] = by_hand;
    Ok(value)
}

type ByHand = fn(&KernelPage) -> String;

/// Sections and how to see them by hand.
const SECTIONS: [(&str, ByHand); 8] = [
    ("namespaces", |p| format!("lsns -p {0}; ls -l /proc/{0}/ns", p.pid)),
    ("mounts", |p| format!("findmnt -N {0}; cat /proc/{0}/mountinfo", p.pid)),
    ("cgroups", cgroups_by_hand),
    ("capabilities", |p| {
        format!(
            "getpcaps {0}; grep -E '^(Cap|NoNewPrivs)' /proc/{0}/status; capsh --decode={1}",
            p.pid, p.capabilities.effective
        )
    }),
    ("seccomp", |p| format!("grep ^Seccomp /proc/{0}/status; seccomp-tools dump -p {0}", p.pid)),
    ("label", |p| format!("cat /proc/{}/attr/current", p.pid)),
    ("limits", |p| format!("prlimit -p {0}; cat /proc/{0}/limits", p.pid)),
    ("sockets", |p| format!("nsenter -t {} -n ss -anptuwx", p.pid)),
];

fn cgroups_by_hand(page: &KernelPage) -> String {
    let dir = page.cgroups.iter().find(|c| !c.values.is_empty()).map_or("/sys/fs/cgroup", |c| c.path.as_str());
    format!("cat /proc/{}/cgroup; grep . {dir}/* 2>/dev/null", page.pid)
}

fn words(name: &str, page: &KernelPage) -> String {
    let mut text = format!("{name}: process {}, {}\n", page.pid, printable(&page.command));
    for (section, by_hand) in SECTIONS {
        text.push_str(&format!("\n{section}    $ {}\n", by_hand(page)));
        let lines = match section {
            "namespaces" => namespaces(page),
            "mounts" => page.mounts.iter().map(mount).collect(),
            "cgroups" => page.cgroups.iter().flat_map(cgroup).collect(),
            "capabilities" => capabilities(page),
            "seccomp" => seccomp(&page.seccomp),
            "label" => vec![if page.label.is_empty() { "none".to_owned() } else { page.label.clone() }],
            "limits" => page.limits.iter().map(|l| format!("{}\t{}\t{}\t{}", l.name, l.soft, l.hard, l.unit)).collect(),
            _ => sockets(page),
        };
        text.extend(align(&lines).lines().map(|line| format!("  {}\n", line.trim_end())));
    }
    text
}

fn namespaces(page: &KernelPage) -> Vec<String> {
    let line = |n: &onggi_primitives::kernel::NamespaceLine| {
        let whose = if n.shared { "the host's" } else { "its own" };
        format!("{}\t{}\t{whose}\t{}", n.kind, n.inode, n.kind.meaning())
    };
    page.namespaces.iter().map(line).collect()
}

fn mount(m: &MountLine) -> String {
    let indent = "  ".repeat(m.depth);
    printable(&format!("{indent}{} {} {} {} {}", m.target, m.source, m.fstype, m.options, m.propagation))
        .trim_end()
        .to_owned()
}

fn cgroup(view: &CgroupView) -> Vec<String> {
    let mut lines = vec![format!("{} {}", view.controllers, view.path)];
    let said = |value: &Option<(String, String)>| value.as_ref().map_or("-".to_owned(), |(_, said)| said.clone());
    let file = |value: &Option<(String, String)>| value.as_ref().map(|(file, _)| file.clone()).unwrap_or_default();
    for v in &view.values {
        let files =
            [file(&v.usage), file(&v.limit)].into_iter().filter(|f| !f.is_empty()).collect::<Vec<_>>().join(", ");
        lines.push(format!("  {}\t{}\tof {}\t{files}", v.name, said(&v.usage), said(&v.limit)));
    }
    lines
}

fn capabilities(page: &KernelPage) -> Vec<String> {
    let c = &page.capabilities;
    let sets = [
        ("effective", &c.effective),
        ("permitted", &c.permitted),
        ("inheritable", &c.inheritable),
        ("bounding", &c.bounding),
        ("ambient", &c.ambient),
    ];
    let names = |mask: &str| {
        let mask = u64::from_str_radix(mask, 16).unwrap_or(0);
        capability::numbers(mask).map(capability::lower_name).collect::<Vec<_>>().join(",")
    };
    let mut lines: Vec<String> = sets.iter().map(|(name, mask)| format!("{name}\t{mask}\t{}", names(mask))).collect();
    lines.push(format!("no_new_privs\t{}\t", if page.no_new_privs { "1" } else { "0" }));
    lines
}

fn seccomp(view: &SeccompView) -> Vec<String> {
    let mut lines = vec![format!("mode {}, {} filter(s)", view.mode, view.filters)];
    for (at, filter) in view.decoded.iter().enumerate() {
        lines.push(format!(
            "filter {at}: {} instructions; another architecture: {}",
            filter.instructions, filter.other_architectures
        ));
        for (action, names) in &filter.verdicts {
            let more = names.len().saturating_sub(NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let some = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(" ");
            lines.push(format!("  {action}: {} calls: {some}{more}", names.len()));
        }
    }
    if !view.note.is_empty() {
        lines.push(format!("the filter: {}", view.note));
    }
    lines
}

fn sockets(page: &KernelPage) -> Vec<String> {
    if page.sockets.is_empty() {
        return vec!["none".to_owned()];
    }
    page.sockets.iter().map(|s| printable_row(&[s.kind, s.state, &s.local, &s.peer])).collect()
}

fn printable_row(cells: &[&str]) -> String {
    cells.iter().map(|cell| printable(cell)).collect::<Vec<_>>().join("\t")
}
