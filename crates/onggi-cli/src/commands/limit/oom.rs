//! What a control group counted when its memory was not enough.

use std::{fs, path::Path};

use onggi_spec::quantity::human_memory;

/// A sentence where the OOM killer has ended a process of the group: `memory.events` of version 2,
/// `memory.oom_control` of version 1 (Linux 4.13 and later).
pub(super) fn told(dir: &Path) -> Option<String> {
    let read = |file: &str| fs::read_to_string(dir.join(file)).ok();
    let (counted, limit) = match read("memory.events") {
        Some(text) => (text, read("memory.max")),
        None => (read("memory.oom_control")?, read("memory.limit_in_bytes")),
    };
    said(&counted, limit.as_deref())
}

fn said(counted: &str, limit: Option<&str>) -> Option<String> {
    let kills: u64 = counted.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()?;
    let limit =
        limit.and_then(|text| text.trim().parse().ok()).map(|bytes| format!(", the limit is {}", human_memory(bytes)));
    let limit = limit.unwrap_or_default();
    match kills {
        0 => None,
        1 => Some(format!("out of memory: the kernel ended a process of the group{limit}")),
        n => Some(format!("out of memory: the kernel ended {n} processes of the group{limit}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_oom_killer_has_done_is_told() {
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n";
        let one = "out of memory: the kernel ended a process of the group, the limit is 20MiB";
        assert_eq!(said(v1, Some("20971520\n")).as_deref(), Some(one));
        let several = said("low 0\noom 3\noom_kill 2\n", Some("max\n"));
        assert_eq!(several.as_deref(), Some("out of memory: the kernel ended 2 processes of the group"));
        assert_eq!(said("oom_kill 0\n", None), None);
        assert_eq!(said("", None), None);
    }
}
