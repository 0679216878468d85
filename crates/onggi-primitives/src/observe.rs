//! What a container's processes ask of the kernel: system calls and capabilities, by the kernel's own tracepoints
//! (`raw_syscalls:sys_enter`, `capability:cap_capable` since Linux 6.14, probes of the same function before) in a tracing
//! instance of our own.
//!
//! The calling thread and everything that it starts is traced from [`Observer::start`] on; what counts is picked out of that
//! afterwards: a process counts from the moment when its runtime has loaded its seccomp filter (or, without one, has
//! executed its program), and so do its children. Nothing is stopped, slowed by a debugger, or refused. A call that a
//! filter refuses does not reach the tracepoint. The instance is removed when the observer goes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{Read, Write},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use onggi_sys::{SysError, trace};
use rustix::{fs::OFlags, io::Errno};

mod plan;

pub use plan::ObservePlan;

use crate::{
    AuditOp, PrimitiveError,
    audit::teller,
    cap_probe::Probes,
    tracefs::{Instance, Line, Lines, lost},
};

/// Buffer of each processor in KiB: a burst of some hundred thousand events.
const BUFFER: &str = "16384";
/// seccomp(2): from then on a process counts.
const SECCOMP: u32 = 317;
/// How often calls that are known are taken out of what the kernel records.
const NARROW: Duration = Duration::from_millis(100);
/// Calls that are taken out: a filter of the kernel is at most a page of text.
const MAX_NARROW: usize = 200;
/// Pause while there is nothing to read.
const PAUSE: Duration = Duration::from_millis(2);

/// What the reader is told: read on; read what is left and end; end at once.
const READ: u8 = 0;
const DRAIN: u8 = 1;
const GIVE_UP: u8 = 2;

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Numbers of system calls.
    pub syscalls: BTreeSet<u32>,
    /// Capabilities that were needed and there, as masks, by the program and the credentials that had them.
    pub granted: BTreeMap<String, u64>,
    /// Capabilities that were asked for and not there, as a mask. The kernel asks for some without needing them.
    pub refused: u64,
    /// The kernel can tell of capabilities.
    pub knows_capabilities: bool,
    /// Events that were lost: what was seen is then not all.
    pub lost: u64,
    /// Any process was seen at all.
    pub any: bool,
}

impl Observed {
    /// The capabilities of its own that the workload used. `possible` are those that it can have: credentials with others
    /// are the kernel's own, such as those by which an overlay reads its layers on behalf of whoever asks.
    pub fn used(&self, possible: u64) -> u64 {
        self.granted.values().filter(|mask| **mask & !possible == 0).fold(0, |all, mask| all | mask)
    }
}

/// An observation under way.
#[derive(Debug)]
pub struct Observer {
    instance: Instance,
    stop: Arc<AtomicU8>,
    reader: Option<JoinHandle<Observed>>,
    /// Goes after the instance, which uses it.
    _probes: Option<Probes>,
}

impl Observer {
    /// Begins to observe what the calling thread starts.
    ///
    /// # Errors
    /// Without root, or in a kernel without tracefs and these tracepoints.
    pub fn start() -> Result<Self, PrimitiveError> {
        let plan = ObservePlan::new(teller());
        let make = || Instance::make().map_err(|source| sys("make a tracing instance", source));
        let instance = trace::step("primitives", || AuditOp::Instance.words(), make)?;
        let begun = begin(&plan, &instance).map_err(|source| sys("set the tracing instance up", source))?;
        let Begun { own, pipe, knows_capabilities, probes } = begun;
        let stop = Arc::new(AtomicU8::new(READ));
        let filter = instance.open("events/raw_syscalls/sys_enter/filter", OFlags::WRONLY);
        let filter = filter.map_err(|source| sys("open the filter of events", source))?;
        let (stopped, mut picked) = (stop.clone(), Picked::new(own, knows_capabilities));
        let reader = thread::Builder::new().name("observer".into()).spawn(move || {
            read(pipe, filter, &stopped, &mut picked);
            picked.seen
        });
        let failed = |_| sys("start a thread", SysError::new("clone", "observer", Errno::AGAIN));
        Ok(Self { instance, stop, reader: Some(reader.map_err(failed)?), _probes: probes })
    }

    /// Ends the observation.
    ///
    /// # Errors
    /// The events could not be read.
    pub fn finish(mut self) -> Result<Observed, PrimitiveError> {
        // No new events; what is in the buffers is still read.
        self.instance.set("tracing_on", "0").map_err(|source| sys("stop tracing", source))?;
        self.stop.store(DRAIN, Ordering::Release);
        let ended = || sys("read the events", SysError::new("read", "trace_pipe", Errno::IO));
        self.reader.take().ok_or_else(ended)?.join().map_err(|_| ended())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Nobody wants what is left. The reader may be traced itself: its reads would go on making events to read.
        self.stop.store(GIVE_UP, Ordering::Release);
        let _ = self.instance.set("tracing_on", "0");
        if let Some(reader) = self.reader.take() {
            // A thread that panicked has told so already.
            let _ = reader.join();
        }
    }
}

fn sys(operation: &str, source: SysError) -> PrimitiveError {
    PrimitiveError::Sys { operation: operation.to_owned(), source }
}

/// What is known before the first event.
struct Begun {
    /// Our thread's number in the first pid namespace, which is what events have.
    own: u32,
    pipe: OwnedFd,
    knows_capabilities: bool,
    probes: Option<Probes>,
}

fn begin(plan: &ObservePlan, instance: &Instance) -> onggi_sys::Result<Begun> {
    let (mut own, mut tracepoint, mut probes) = (0, false, None);
    for op in &plan.before {
        let one = || -> onggi_sys::Result<()> {
            match op {
                AuditOp::Own => {
                    own = own_number(instance)?;
                    instance.set("set_event_pid", &own.to_string())?;
                }
                // Without either there is still everything else to learn.
                AuditOp::Set { file, value } if file == plan::CAPABILITY => {
                    tracepoint = instance.set(file, value).is_ok();
                }
                AuditOp::Probe { .. } => probes = instance.probes().ok(),
                AuditOp::Set { file, value } => instance.set(file, value)?,
                // It is made already; the others are none of this plan's beginning.
                _ => {}
            }
            Ok(())
        };
        trace::step("primitives", || op.words(), one)?;
    }
    let knows_capabilities = tracepoint || probes.is_some();
    Ok(Begun { own, pipe: instance.pipe()?, knows_capabilities, probes })
}

/// Numbers differ by pid namespace, and events have those of the first: a mark of our own shows ours.
fn own_number(instance: &Instance) -> onggi_sys::Result<u32> {
    let token = format!("mark of {}", instance.name);
    instance.set("trace_marker", &token)?;
    let text = instance.take()?;
    let line = text.lines().find(|line| line.contains(&token));
    let own = line.and_then(Line::parse).map(|line| line.task);
    own.ok_or_else(|| SysError::new("read", "trace: the mark is not there", Errno::IO))
}

/// Reads until it is told to stop and nothing is left.
fn read(pipe: OwnedFd, filter: OwnedFd, stop: &AtomicU8, picked: &mut Picked) {
    let (mut pipe, mut filter) = (std::fs::File::from(pipe), std::fs::File::from(filter));
    let mut buffer = vec![0; 1 << 16];
    let mut lines = Lines::default();
    let mut narrowed = (Instant::now(), 0);
    loop {
        let stopping = match stop.load(Ordering::Acquire) {
            GIVE_UP => return,
            order => order == DRAIN,
        };
        match pipe.read(&mut buffer) {
            Ok(n) if n > 0 => lines.feed(&buffer[..n], |line| picked.line(line)),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // Empty: no more will come once tracing is off.
            _ if stopping => return,
            _ => thread::sleep(PAUSE),
        }
        if narrowed.0.elapsed() > NARROW && picked.seen.syscalls.len() > narrowed.1 {
            narrowed = (Instant::now(), picked.seen.syscalls.len());
            // Without it there is only more to read.
            let _ = filter.write_all(narrow(&picked.seen.syscalls).as_bytes());
        }
    }
}

/// Calls that are known need not be told again.
fn narrow(known: &BTreeSet<u32>) -> String {
    let ids = known.iter().filter(|id| **id != SECCOMP).take(MAX_NARROW);
    ids.map(|id| format!("id!={id}")).collect::<Vec<_>>().join("&&")
}

/// What is known of a task.
#[derive(Debug, Clone, Copy, Default)]
struct Task {
    /// Forks between us and it.
    depth: u32,
    /// It belongs to the container, and is confined.
    counts: bool,
    /// It has executed the program: from then on its capabilities are the program's needs.
    runs: bool,
    /// How many programs it has executed: credentials of one are gone with it, and their address may be another's.
    programs: u32,
}

/// Picks what counts out of the events.
struct Picked {
    tasks: HashMap<u32, Task>,
    /// Checks that a probe has told of without their answer: by task, whose credentials, and which capability.
    asked: HashMap<u32, (String, i64)>,
    seen: Observed,
}

impl Picked {
    fn new(own: u32, knows_capabilities: bool) -> Self {
        let seen = Observed { knows_capabilities, ..Observed::default() };
        Self { tasks: HashMap::from([(own, Task::default())]), asked: HashMap::new(), seen }
    }

    fn line(&mut self, text: &str) {
        if let Some(lost) = lost(text) {
            self.seen.lost += lost;
            return;
        }
        let Some(line) = Line::parse(text) else { return };
        match line.event {
            "sched_process_fork" => self.fork(&line),
            "sched_process_exec" => self.exec(line.task),
            "sys_enter" => self.call(&line),
            "cap_capable" => {
                let whose = line.rest.split(',').next().unwrap_or_default();
                if let (Some(cap), Some(ret)) = (line.number("cap "), line.number("ret ")) {
                    self.capability(line.task, whose, cap, ret);
                }
            }
            "cap_asked" => {
                let whose = line.rest.split(' ').find(|word| word.starts_with("cred=")).unwrap_or_default();
                self.asked.extend(line.number("cap=").map(|cap| (line.task, (whose.to_owned(), cap))));
            }
            "cap_answered" => {
                if let (Some((whose, cap)), Some(ret)) = (self.asked.remove(&line.task), line.number("ret=")) {
                    self.capability(line.task, &whose, cap, ret);
                }
            }
            _ => {}
        }
    }

    fn fork(&mut self, line: &Line<'_>) {
        let Some(child) = line.number("child_pid=").and_then(|pid| u32::try_from(pid).ok()) else { return };
        let parent = self.tasks.get(&line.task).copied().unwrap_or_default();
        self.tasks.insert(child, Task { depth: parent.depth + 1, ..parent });
    }

    /// The monitor is our child; the container's first process is a child of its helper.
    fn exec(&mut self, task: u32) {
        if let Some(task) = self.tasks.get_mut(&task)
            && task.depth >= 2
        {
            (task.counts, task.runs) = (true, true);
            task.programs += 1;
            self.seen.any = true;
        }
    }

    fn call(&mut self, line: &Line<'_>) {
        let Some(number) = line.number("NR ").and_then(|n| u32::try_from(n).ok()) else { return };
        let Some(task) = self.tasks.get_mut(&line.task) else { return };
        if task.counts {
            self.seen.syscalls.insert(number);
        } else if number == SECCOMP && task.depth >= 2 {
            task.counts = true;
        }
    }

    fn capability(&mut self, task: u32, whose: &str, cap: i64, ret: i64) {
        let Some(known) = self.tasks.get(&task).filter(|known| known.runs) else { return };
        if (0..64).contains(&cap) {
            let whose = format!("{task} {} {whose}", known.programs);
            match ret {
                0 => *self.seen.granted.entry(whose).or_default() |= 1 << cap,
                _ => self.seen.refused |= 1 << cap,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(lines: &[&str]) -> Observed {
        let mut picked = Picked::new(100, true);
        lines.iter().for_each(|line| picked.line(line));
        picked.seen
    }

    const FORKS: [&str; 4] = [
        "  onggi-100     [000] .....  1.0: sched_process_fork: comm=onggi pid=100 child_comm=onggi child_pid=101",
        "  onggi-oci-101     [000] .....  1.1: sched_process_exec: filename=/x/onggi-oci pid=101 old_pid=101",
        "  onggi-oci-101     [000] .....  1.2: sched_process_fork: comm=o pid=101 child_comm=o child_pid=102",
        "  onggi-oci-102     [001] .....  1.3: sched_process_fork: comm=o pid=102 child_comm=o child_pid=103",
    ];

    #[test]
    fn a_process_counts_from_its_filter_on_and_its_capabilities_from_its_program_on() {
        let after = [
            "  onggi-oci-103     [001] .....  1.4: sys_enter: NR 165 (0, 0, 0, 0, 0, 0)",
            "  onggi-oci-103     [001] .....  1.5: sys_enter: NR 317 (1, 0, 7f, 0, 0, 0)",
            "  onggi-oci-103     [001] .....  1.6: cap_capable: cred 0, target_ns 0, capable_ns 0, cap 21, ret 0",
            "  onggi-oci-103     [001] .....  1.7: sys_enter: NR 59 (0, 0, 0, 0, 0, 0)",
            "  we [1] ird-103     [001] .....  1.8: sched_process_exec: filename=/bin/sh pid=103 old_pid=103",
            "  sh-103     [001] .....  1.9: cap_capable: cred 0, target_ns 0, capable_ns 0, cap 13, ret 0",
            "  sh-103     [001] .....  1.9: cap_capable: cred 0, target_ns 0, capable_ns 0, cap 12, ret -1",
            "  sh-103     [001] .....  1.9: cap_capable: cred 7, target_ns 0, capable_ns 0, cap 21, ret 0",
            "  sh-103     [001] .....  1.9: cap_capable: cred 7, target_ns 0, capable_ns 0, cap 1, ret 0",
            "  sh-103     [001] .....  2.0: sched_process_fork: comm=sh pid=103 child_comm=sh child_pid=104",
            "  sh-104     [000] .....  2.1: sys_enter: NR 41 (0, 0, 0, 0, 0, 0)",
            "  onggi-oci-101     [000] .....  2.2: sys_enter: NR 317 (1, 0, 7f, 0, 0, 0)",
            "  onggi-oci-101     [000] .....  2.3: sys_enter: NR 232 (1, 0, 7f, 0, 0, 0)",
            "CPU:1 [LOST 12 EVENTS]",
        ];
        let seen = feed(&[&FORKS[..], &after].concat());
        assert_eq!(seen.syscalls, BTreeSet::from([41, 59]), "the runtime's and the monitor's calls do not count");
        assert_eq!(
            (seen.used(0xffff), seen.refused, seen.lost),
            (1 << 13, 1 << 12, 12),
            "an overlay's own do not count"
        );
    }

    #[test]
    fn probes_tell_the_same_in_two_lines() {
        let after = [
            "  sh-103     [001] .....  1.8: sched_process_exec: filename=/bin/sh pid=103 old_pid=103",
            "  sh-103     [001] .....  1.9: cap_asked: (cap_capable+0x0/0x90) cred=0xffff8880 cap=13",
            "  sh-104     [000] .....  1.9: cap_asked: (cap_capable+0x0/0x90) cred=0xffff8880 cap=5",
            "  sh-103     [001] .....  1.9: cap_answered: (security_capable+0x2d/0x50 <- cap_capable) ret=0",
            "  sh-103     [001] .....  1.9: cap_asked: (cap_capable+0x0/0x90) cred=0xffff8880 cap=12",
            "  sh-103     [001] .....  1.9: cap_answered: (ns_capable+0x2d/0x50 <- cap_capable) ret=-1",
            "  sh-103     [001] .....  2.0: cap_answered: (ns_capable+0x2d/0x50 <- cap_capable) ret=0",
        ];
        let seen = feed(&[&FORKS[..], &after].concat());
        assert_eq!((seen.used(0xffff), seen.refused), (1 << 13, 1 << 12));
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        assert_eq!(feed(&["", "# tracer: nop", "x-1 [0] y", "  a-9 [000] 1.0: sys_enter: NR x"]), feed(&[]));
        assert_eq!(narrow(&BTreeSet::from([0, 1, SECCOMP])), "id!=0&&id!=1");
    }
}
