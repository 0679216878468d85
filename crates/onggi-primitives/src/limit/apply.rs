//! Tells a process what it may do.

use std::path::Path;

use onggi_sys::{
    SysError,
    process::set_parent_death_signal,
    rlimit::{self, Limit},
    trace,
};
use rustix::{
    process::{Pid, setpriority_process},
    thread::{CpuSet, sched_setaffinity},
};

use super::{Inside, show};
use crate::cgroup::{GroupError, GroupPlan, Op, apply};

const SIGCONT: i32 = 18;

/// Makes the calling process what it is to be before it becomes the command.
///
/// # Errors
/// The kernel or systemd refuses something; what was done before is done.
pub fn apply_inside(inside: &Inside) -> Result<(), GroupError> {
    let join = |file: &std::path::PathBuf| Op::Join { file: file.clone() };
    let ops = inside.join.iter().map(join).collect();
    apply(&GroupPlan { ops, notes: Vec::new() })?;
    if let Some(unit) = &inside.scope {
        let ask = || onggi_cgroup::systemd::start(unit, std::process::id().cast_signed());
        trace::step("primitives", || format!("ask systemd to make {} around this process", unit.name), ask)?;
    }
    if inside.wake_at_death {
        let wake = || set_parent_death_signal(SIGCONT).map_err(|e| sys("be woken at the parent's end", e));
        trace::step("primitives", || "prctl(2): SIGCONT when the parent ends".to_owned(), wake)?;
    }
    tell(std::process::id().cast_signed(), inside)?;
    trace::point("primitives", || format!("execve(2): {}", crate::shell::words(&inside.command)));
    Ok(())
}

/// Limits a process that runs: every thread of it, as priorities and CPUs are those of threads.
///
/// # Errors
/// The process is gone, or belongs to somebody else.
pub fn apply_process(pid: i32, inside: &Inside) -> Result<(), GroupError> {
    tell(pid, inside)
}

fn tell(pid: i32, inside: &Inside) -> Result<(), GroupError> {
    for limit in &inside.rlimits {
        let set = || rlimit::set_of(pid, limit.number, Limit { soft: limit.soft, hard: limit.hard });
        trace::step("primitives", || format!("prlimit(2) of process {pid}: {}", show::option(limit)), set)
            .map_err(|e| sys(&format!("set {} of process {pid}", limit.name), e))?;
    }
    if inside.nice.is_none() && inside.affinity.is_none() {
        return Ok(());
    }
    let cpus = inside.affinity.as_deref().map(cpu_set).transpose()?;
    for thread in threads(pid)? {
        if let Some(nice) = inside.nice {
            let words = || format!("setpriority(2) of thread {}: {nice}", thread.as_raw_nonzero());
            trace::step("primitives", words, || setpriority_process(Some(thread), nice))
                .map_err(|e| failed("setpriority", format!("set the priority {nice} of process {pid}"), e))?;
        }
        if let Some(cpus) = &cpus {
            let list = inside.affinity.as_deref().unwrap_or_default();
            let words = || format!("sched_setaffinity(2) of thread {}: CPUs {list}", thread.as_raw_nonzero());
            trace::step("primitives", words, || sched_setaffinity(Some(thread), cpus))
                .map_err(|e| failed("sched_setaffinity", format!("set the CPUs of process {pid}"), e))?;
        }
    }
    Ok(())
}

fn threads(pid: i32) -> Result<Vec<Pid>, GroupError> {
    let dir = Path::new("/proc").join(pid.to_string()).join("task");
    let entries = std::fs::read_dir(&dir).map_err(|_| GroupError::NoProcess { pid })?;
    let number = |e: std::fs::DirEntry| e.file_name().to_str()?.parse::<i32>().ok().and_then(Pid::from_raw);
    Ok(entries.flatten().filter_map(number).collect())
}

/// `0-1,3`.
fn cpu_set(list: &str) -> Result<CpuSet, GroupError> {
    let wrong = || {
        let (key, value) = ("cpuset".to_owned(), list.chars().take(128).collect());
        GroupError::BadValue { key, value, reason: "use a list such as 0-1,3".into() }
    };
    let mut set = CpuSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last || last >= CpuSet::MAX_CPU {
            return Err(wrong());
        }
        (first..=last).for_each(|cpu| set.set(cpu));
    }
    Ok(set)
}

fn sys(operation: &str, source: SysError) -> GroupError {
    GroupError::Sys { operation: operation.to_owned(), source }
}

fn failed(call: &'static str, operation: String, errno: rustix::io::Errno) -> GroupError {
    GroupError::Sys { operation, source: SysError::new(call, "", errno) }
}
