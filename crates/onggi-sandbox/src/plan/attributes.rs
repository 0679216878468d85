//! Scheduler, I/O priority, CPU affinity, memory policy and personality: words of the configuration → what the
//! kernel takes. Pure. config.md "Linux Process", config-linux.md "Memory policy", "Personality".
//!
//! The tables are the source of what `features` lists.

use onggi_spec::oci::runtime::{LinuxIoPriority, LinuxMemoryPolicy, LinuxPersonality, Scheduler};
use onggi_sys::sched::{MAX_CPUS, MAX_NODES, SchedulerAttributes};

use crate::error::{Result, StartFailureError};

/// linux/sched.h.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// linux/sched.h.
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// linux/ioprio.h.
const IO_CLASSES: [(&str, u32); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// Modes of `linux.memoryPolicy`; the position is the kernel's number (linux/mempolicy.h).
pub const MEMORY_POLICY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

/// Flags of `linux.memoryPolicy` (linux/mempolicy.h).
pub const MEMORY_POLICY_FLAGS: [(&str, u32); 3] =
    [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];

/// PER_LINUX and PER_LINUX32 (linux/personality.h).
const PERSONALITIES: [(&str, u32); 2] = [("LINUX", 0), ("LINUX32", 8)];

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
}

fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(StartFailureError::new(why))
}

/// `process.scheduler` as sched_setattr(2) takes it, by its rules.
pub(crate) fn scheduler(s: &Scheduler) -> Result<SchedulerAttributes> {
    if s.policy.is_empty() {
        return refuse("process.scheduler: scheduler policy is required");
    }
    let Some(policy) = find(&POLICIES, &s.policy) else {
        return refuse(format!("process.scheduler: invalid scheduler policy: {:?}", s.policy));
    };
    if !(-20..=19).contains(&s.nice) {
        return refuse(format!("process.scheduler: invalid scheduler.nice: {}", s.nice));
    }
    let real_time = matches!(s.policy.as_str(), "SCHED_FIFO" | "SCHED_RR");
    if s.priority != 0 && !real_time {
        return refuse("process.scheduler: scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR policy");
    }
    if s.policy != "SCHED_DEADLINE" && (s.runtime, s.deadline, s.period) != (0, 0, 0) {
        return refuse(
            "process.scheduler: scheduler runtime/deadline/period can only be specified for SCHED_DEADLINE policy",
        );
    }
    if s.policy == "SCHED_DEADLINE" {
        deadline(s)?;
    }
    let Ok(priority) = u32::try_from(s.priority) else {
        return refuse(format!("process.scheduler: invalid scheduler.priority: {}", s.priority));
    };
    let mut flags = 0;
    for flag in &s.flags {
        match find(&FLAGS, flag) {
            Some(bit) => flags |= bit,
            None => return refuse(format!("process.scheduler: invalid scheduler flag: {flag:?}")),
        }
    }
    Ok(SchedulerAttributes {
        policy,
        flags,
        nice: s.nice,
        priority,
        runtime: s.runtime,
        deadline: s.deadline,
        period: s.period,
    })
}

/// What sched_setattr(2) answers with a bare EINVAL.
fn deadline(s: &Scheduler) -> Result<()> {
    /// The kernel's resolution, in nanoseconds.
    const LEAST: u64 = 1024;
    // The words are crun's as far as there are some.
    let fail = |why: String| refuse(format!("process.scheduler: sched_setattr: `SCHED_DEADLINE` {why}"));
    let (runtime, deadline, period) = (s.runtime, s.deadline, s.period);
    match () {
        () if runtime == 0 => fail("requires `runtime`, greater than 0".into()),
        () if deadline == 0 => fail("requires `deadline`, greater than 0".into()),
        () if !(LEAST..1 << 63).contains(&runtime) || deadline >= 1 << 63 => {
            fail(format!("runtime {runtime} must be between {LEAST} and 2^63-1 nanoseconds, and so must deadline"))
        }
        () if runtime > deadline => fail(format!("runtime {runtime} must be <= deadline {deadline}")),
        () if period != 0 && deadline > period => fail(format!("deadline {deadline} must be <= period {period}")),
        () => Ok(()),
    }
}

/// `process.ioPriority` as class and priority.
pub(crate) fn io_priority(p: &LinuxIoPriority) -> Result<(u32, u32)> {
    let Some(class) = find(&IO_CLASSES, &p.class) else {
        return refuse(format!("process.ioPriority: invalid ioPriority.Class: {:?}", p.class));
    };
    match u32::try_from(p.priority) {
        Ok(priority @ 0..=7) => Ok((class, priority)),
        _ => refuse(format!("process.ioPriority: invalid ioPriority.Priority: {} is not in 0..=7", p.priority)),
    }
}

/// `linux.memoryPolicy` as mode bits and node mask; `None` for an empty object.
pub(crate) fn memory_policy(p: &LinuxMemoryPolicy) -> Result<Option<(u32, Vec<u64>)>> {
    if *p == LinuxMemoryPolicy::default() {
        return Ok(None);
    }
    let Some(mode) = MEMORY_POLICY_MODES.iter().position(|m| *m == p.mode) else {
        return refuse(format!("linux.memoryPolicy: invalid memory policy mode: {:?}", p.mode));
    };
    let mut bits = u32::try_from(mode).unwrap_or(u32::MAX);
    for flag in &p.flags {
        match find(&MEMORY_POLICY_FLAGS, flag) {
            Some(bit) => bits |= bit,
            None => return refuse(format!("linux.memoryPolicy: invalid memory policy flag: {flag:?}")),
        }
    }
    let nodes = number_list(&p.nodes, MAX_NODES)
        .map_err(|why| StartFailureError::new(format!("linux.memoryPolicy: invalid memory policy node: {why}")))?;
    Ok(Some((bits, nodes)))
}

/// `linux.personality` as personality(2) takes it, and whether it has flags, which mean nothing yet.
pub(crate) fn personality(p: &LinuxPersonality) -> Result<u32> {
    match find(&PERSONALITIES, &p.domain) {
        Some(persona) => Ok(persona),
        None => refuse(format!("linux.personality: invalid personality domain {:?}", p.domain))
            .map_err(|e: StartFailureError| e.hint("LINUX and LINUX32 are known")),
    }
}

/// A list of CPUs as an affinity mask; `None` for an empty one.
pub(crate) fn cpu_list(what: &str, text: Option<&String>) -> Result<Option<Vec<u64>>> {
    let Some(text) = text.filter(|t| !t.trim().is_empty()) else { return Ok(None) };
    match number_list(text, MAX_CPUS) {
        Ok(mask) if mask.iter().any(|w| *w != 0) => Ok(Some(mask)),
        Ok(_) => refuse(format!("process.execCPUAffinity.{what}: {text:?} names no CPU")),
        Err(why) => refuse(format!("process.execCPUAffinity.{what}: {why}")),
    }
}

/// `0-3,7` (cpuset(7), "List format") as a mask of numbers below `limit`; spaces around numbers are accepted.
fn number_list(text: &str, limit: usize) -> std::result::Result<Vec<u64>, String> {
    let mut mask = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |t: &str| {
            let t = t.trim();
            let plain = !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
            let number = t.parse::<usize>().ok().filter(|n| plain && *n < limit);
            number.ok_or_else(|| format!("{part:?} is not a number below {limit} or a range of such"))
        };
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last {
            return Err(format!("range {part:?} is backwards"));
        }
        if mask.len() <= last / 64 {
            mask.resize(last / 64 + 1, 0u64);
        }
        (first..=last).for_each(|n| mask[n / 64] |= 1 << (n % 64));
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why<T: std::fmt::Debug>(r: Result<T>) -> String {
        r.expect_err("refused").to_string()
    }

    #[test]
    fn lists_become_masks() {
        assert_eq!(number_list("", 64).unwrap(), [0u64; 0]);
        assert_eq!(number_list("0", 64).unwrap(), [1]);
        assert_eq!(number_list("0-3, 7", 64).unwrap(), [0x8f]);
        assert_eq!(number_list("64", 128).unwrap(), [0, 1]);
        for bad in ["x", "1-", "-1", "3-1", "64", "0-9876543210", "+1", "1:2", "0x1"] {
            assert!(number_list(bad, 64).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scheduler_follows_the_rules_of_sched_setattr() {
        let s = |policy: &str| Scheduler { policy: policy.into(), ..Scheduler::default() };
        assert_eq!(scheduler(&s("SCHED_BATCH")).unwrap().policy, 3);
        assert!(why(scheduler(&s(""))).contains("policy is required"));
        assert!(why(scheduler(&s("SCHED_FAST"))).contains("invalid scheduler policy"));
        assert!(why(scheduler(&Scheduler { nice: 20, ..s("SCHED_OTHER") })).contains("invalid scheduler.nice: 20"));
        assert!(why(scheduler(&Scheduler { priority: 1, ..s("SCHED_OTHER") })).contains("SCHED_FIFO or SCHED_RR"));
        assert!(why(scheduler(&Scheduler { priority: -1, ..s("SCHED_RR") })).contains("invalid scheduler.priority"));
        assert!(why(scheduler(&Scheduler { period: 1, ..s("SCHED_FIFO") })).contains("SCHED_DEADLINE policy"));
        let flags = |f: &str| Scheduler { flags: vec![f.into()], ..s("SCHED_OTHER") };
        assert_eq!(scheduler(&flags("SCHED_FLAG_RESET_ON_FORK")).unwrap().flags, 1);
        assert!(why(scheduler(&flags("FLAG"))).contains("invalid scheduler flag"));
    }

    #[test]
    fn an_io_priority_is_a_class_and_a_small_number() {
        let p = |class: &str, priority| LinuxIoPriority { class: class.into(), priority };
        assert_eq!(io_priority(&p("IOPRIO_CLASS_BE", 4)).unwrap(), (2, 4));
        assert_eq!(io_priority(&p("IOPRIO_CLASS_IDLE", 0)).unwrap(), (3, 0));
        assert!(why(io_priority(&p("BE", 4))).contains("invalid ioPriority.Class"));
        for bad in [-1, 8] {
            assert!(why(io_priority(&p("IOPRIO_CLASS_RT", bad))).contains("invalid ioPriority.Priority"));
        }
    }

    #[test]
    fn a_memory_policy_is_a_mode_with_flags_and_nodes() {
        let p = |mode: &str, nodes: &str, flags: &[&str]| LinuxMemoryPolicy {
            mode: mode.into(),
            nodes: nodes.into(),
            flags: flags.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(memory_policy(&p("", "", &[])).unwrap(), None);
        assert_eq!(memory_policy(&p("MPOL_INTERLEAVE", "0", &[])).unwrap(), Some((3, vec![1])));
        assert_eq!(memory_policy(&p("MPOL_BIND", "0", &["MPOL_F_STATIC_NODES"])).unwrap(), Some((0x8002, vec![1])));
        assert!(why(memory_policy(&p("INTERLEAVE", "0", &[]))).contains("invalid memory policy mode"));
        assert!(why(memory_policy(&p("", "0-7", &[]))).contains("invalid memory policy mode"));
        assert!(why(memory_policy(&p("MPOL_BIND", "0", &["bad"]))).contains("invalid memory policy flag"));
        assert!(why(memory_policy(&p("MPOL_BIND", "0-9876543210", &[]))).contains("invalid memory policy node"));
    }

    #[test]
    fn only_the_two_domains_of_the_specification_are_known() {
        let p = |domain: &str| LinuxPersonality { domain: domain.into(), flags: Vec::new() };
        assert_eq!((personality(&p("LINUX")).unwrap(), personality(&p("LINUX32")).unwrap()), (0, 8));
        assert!(why(personality(&p("BSD"))).contains("invalid personality domain"));
    }
}
