//! Which capabilities processes really use: the kernel tells each check (tracepoint `capability:cap_capable`, Linux 6.14;
//! before, probes of the same function).
//!
//! An instance of tracefs of its own is made, and removed at the end: nobody else's tracing is touched. Only the given
//! processes and what they start are listened to. A check that succeeds is a use; one that fails was asked for and
//! refused, which programs often try without need. One kind of check is none: whenever memory is mapped, the kernel asks
//! for CAP_SYS_ADMIN only to know how much may be promised, and goes on either way. It is known by the stack of calls.

mod plan;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use onggi_sys::{Errno, SysError, trace};

use crate::{
    Kind, PrimitiveError,
    cap_probe::{EVENTS, Probes},
    process,
    tracefs::{FIRST_PID_NAMESPACE, Instance, Line, Lines, lost},
};

pub use plan::{AuditOp, AuditPlan, SCRIPT_HEAD, Teller};

/// Bytes of one look.
const PIECE: usize = 1 << 16;
/// Pieces of one look. Where this process itself is listened to, looking makes new checks, without end.
const MAX_PIECES: usize = 64;
/// Who asks, when memory is mapped (mm/util.c, security/commoncap.c).
const MEMORY: &str = "vm_enough_memory";

/// What this kernel tells of checks by. Who may not look at tracefs is told by the kernel's version.
pub fn teller() -> Teller {
    match crate::tracefs::kernel_has(plan::EVENT) {
        Ok(true) => Teller::Tracepoint,
        Ok(false) => Teller::Probes,
        Err(_) => by_release(&rustix::system::uname().release().to_string_lossy()),
    }
}

/// The tracepoint came with Linux 6.14.
fn by_release(release: &str) -> Teller {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 14) { Teller::Probes } else { Teller::Tracepoint }
}

/// What was seen of one capability.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Checks that succeeded.
    pub granted: u64,
    /// Checks that failed.
    pub refused: u64,
    /// Names of the programs whose checks succeeded.
    pub programs: Vec<String>,
}

/// Everything that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// By number.
    pub capabilities: BTreeMap<u32, Uses>,
    /// Checks that the kernel could not keep.
    pub lost: u64,
}

/// A running trace. It ends when it is dropped.
#[derive(Debug)]
pub struct Audit {
    reader: Reader,
    lines: Lines,
    /// Closed before the instance goes.
    pipe: File,
    instance: Instance,
    /// Goes after the instance, which uses it.
    _probes: Option<Probes>,
}

impl Audit {
    /// Does what a plan has before its time or its command. The names of programs whose checks are left out: those that
    /// prepare a container's process.
    ///
    /// # Errors
    /// Without root, or on a kernel that does not tell.
    pub fn start(plan: &AuditPlan, ignored: &[&str]) -> Result<Self, PrimitiveError> {
        let make = || Instance::make().map_err(|source| sys("make a trace", source));
        let instance = trace::step("primitives", || plan::words(&AuditOp::Instance), make)?;
        let mut probes = None;
        for op in &plan.ops {
            match op {
                AuditOp::Watch { .. } | AuditOp::Execute { .. } => break,
                // What enters the container is a child of ours.
                AuditOp::Only { pids } if plan.executes() => {
                    let pids = [pids, &[std::process::id().cast_signed()][..]].concat();
                    one(&AuditOp::Only { pids }, &instance)?;
                }
                AuditOp::Probe { .. } => {
                    probes = Some(trace::step("primitives", || plan::words(op), || self::probes(&instance))?);
                }
                op => one(op, &instance)?,
            }
        }
        let pipe = instance.pipe().map_err(|source| sys("read the trace", source))?;
        let reader = Reader { ignored: ignored.iter().map(|name| (*name).to_owned()).collect(), ..Reader::default() };
        Ok(Self { reader, lines: Lines::default(), pipe: pipe.into(), instance, _probes: probes })
    }

    /// Reads what the kernel has told since the last time. To be called several times a second.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn look(&mut self) -> Result<(), PrimitiveError> {
        let mut piece = vec![0; PIECE];
        for _ in 0..MAX_PIECES {
            match self.pipe.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(n) => self.lines.feed(&piece[..n], |line| self.reader.line(line)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(PrimitiveError::Read { path: "trace_pipe".into(), source }),
            }
        }
        Ok(())
    }

    /// What was seen.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn finish(mut self) -> Result<Seen, PrimitiveError> {
        self.look()?;
        Ok(std::mem::take(&mut self.reader).finish())
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        // An instance that is still there is harmless: it is only memory, and `rmdir` removes it.
        for event in [plan::EVENT, EVENTS[0], EVENTS[1]] {
            let _ = self.instance.set(&format!("{event}/enable"), "0");
        }
    }
}

/// What kernels without the tracepoint have.
fn probes(instance: &Instance) -> Result<Probes, PrimitiveError> {
    instance.probes().map_err(|e| PrimitiveError::Refused {
        message: format!("this kernel does not tell of capability checks ({e})"),
        hint:
            "Linux 6.14 and newer has the tracepoint capability:cap_capable; older ones tell when they have probes of \
               functions (CONFIG_KPROBE_EVENTS) and are not locked down"
                .to_owned(),
    })
}

fn one(op: &AuditOp, instance: &Instance) -> Result<(), PrimitiveError> {
    match op {
        AuditOp::Set { file, value } => trace::step("primitives", || plan::words(op), || instance.set(file, value))
            .map_err(|source| sys(plan::words(op), source)),
        AuditOp::Only { pids } => {
            let numbers = global_numbers(instance, pids)?;
            let add = || numbers.iter().try_for_each(|number| instance.add("set_event_pid", &number.to_string()));
            trace::step("primitives", || plan::words(op), add).map_err(|source| sys(plan::words(op), source))
        }
        // They are made and removed with the values that stand for them; the others end the preparation.
        AuditOp::Instance
        | AuditOp::Own
        | AuditOp::Remove
        | AuditOp::Probe { .. }
        | AuditOp::Unprobe { .. }
        | AuditOp::Watch { .. }
        | AuditOp::Execute { .. } => Ok(()),
    }
}

fn sys(operation: impl Into<String>, source: SysError) -> PrimitiveError {
    PrimitiveError::Sys { operation: operation.into(), source }
}

/// Puts checks and the stacks that follow them together.
#[derive(Debug, Default)]
struct Reader {
    seen: Seen,
    /// Programs that are left out: those that prepare a container's process.
    ignored: Vec<String>,
    /// Checks that a probe has told of without their answer, by the process's number: the capability, and whether memory
    /// was mapped.
    asked: BTreeMap<u32, (i64, bool)>,
    /// Checks whose stack has not come yet, by the process's number.
    waiting: BTreeMap<u32, Check>,
    /// The stack that is being read: whose, and whether memory was mapped.
    stack: Option<(u32, bool)>,
}

#[derive(Debug)]
struct Check {
    capability: u32,
    granted: bool,
    program: String,
}

impl Reader {
    /// `  bash-812  [001] …  12.3: cap_capable: cred …, target_ns …, capable_ns …, cap 21, ret 0`, then
    /// `  bash-812  [001] …  12.3: <stack trace>` and ` => function` for each call.
    fn line(&mut self, line: &str) {
        if let Some(function) = line.strip_prefix(" => ") {
            if let Some((_, memory)) = &mut self.stack {
                *memory |= function.contains(MEMORY);
            }
            return;
        }
        self.end_stack();
        self.seen.lost += lost(line).unwrap_or(0);
        let Some(line) = Line::parse(line) else { return };
        match line.event {
            "<stack trace>" => self.stack = Some((line.task, false)),
            "cap_capable" => {
                if let (Some(capability), Some(result)) = (line.number(", cap "), line.number(", ret ")) {
                    self.check(&line, capability, result);
                }
            }
            "cap_asked" => self.asked.extend(line.number("cap=").map(|cap| (line.task, (cap, false)))),
            "cap_answered" => {
                let asked = self.asked.remove(&line.task).filter(|(_, memory)| !memory);
                if let (Some((capability, _)), Some(result)) = (asked, line.number("ret=")) {
                    self.check(&line, capability, result);
                }
            }
            _ => {}
        }
    }

    fn check(&mut self, line: &Line<'_>, capability: i64, result: i64) {
        let Ok(capability) = u32::try_from(capability) else { return };
        if self.ignored.iter().any(|name| name == line.program) {
            return;
        }
        let check = Check { capability, granted: result == 0, program: line.program.to_owned() };
        // One whose stack was lost counts.
        if let Some(earlier) = self.waiting.insert(line.task, check) {
            self.seen.note(earlier);
        }
    }

    fn end_stack(&mut self) {
        let Some((pid, memory)) = self.stack.take() else { return };
        if let Some((_, for_memory)) = self.asked.get_mut(&pid) {
            *for_memory |= memory;
            return;
        }
        if let Some(check) = self.waiting.remove(&pid).filter(|_| !memory) {
            self.seen.note(check);
        }
    }

    fn finish(mut self) -> Seen {
        self.end_stack();
        for check in std::mem::take(&mut self.waiting).into_values() {
            self.seen.note(check);
        }
        self.seen
    }
}

impl Seen {
    fn note(&mut self, check: Check) {
        let uses = self.capabilities.entry(check.capability).or_default();
        if !check.granted {
            uses.refused += 1;
            return;
        }
        uses.granted += 1;
        if !uses.programs.contains(&check.program) {
            uses.programs.push(check.program);
        }
    }
}

/// The trace knows processes by their numbers in the first pid namespace. Where /proc shows another one, they are found
/// out: a process's oom_score_adj is written as it was, which the kernel tells with that number.
fn global_numbers(instance: &Instance, pids: &[i32]) -> Result<Vec<i32>, PrimitiveError> {
    let own = process(std::process::id().cast_signed())?.namespaces.get(&Kind::Pid).copied();
    if own == Some(FIRST_PID_NAMESPACE) {
        return Ok(pids.to_vec());
    }
    let told = |source| sys("find the processes' numbers in the first pid namespace", source);
    instance.set("events/oom/oom_score_adj_update/enable", "1").map_err(told)?;
    for pid in pids {
        let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
        let again = fs::read_to_string(&path).and_then(|value| fs::write(&path, value.trim()));
        match again {
            // It has gone meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            other => other.map_err(failed(&path))?,
        }
    }
    instance.set("events/oom/oom_score_adj_update/enable", "0").map_err(told)?;
    let text = instance.take().map_err(told)?;
    let number = |line: &str| line.split_once("oom_score_adj_update: pid=")?.1.split(' ').next()?.parse().ok();
    Ok(text.lines().filter_map(number).collect())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PrimitiveError {
    let path = path.to_owned();
    move |source| PrimitiveError::Read { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_counted_by_capability_and_program_and_those_for_memory_are_not() {
        let mut reader = Reader { ignored: vec!["onggi-oci".to_owned()], ..Reader::default() };
        let mut check = |task: &str, cap: u32, ret: i32, stack: &[&str]| {
            let head = format!("   {task}   [001] .....  12.3: ");
            reader.line(&format!("{head}cap_capable: cred 0, target_ns 0, capable_ns 0, cap {cap}, ret {ret}\n"));
            reader.line(&format!("{head}<stack trace>\n"));
            stack.iter().for_each(|function| reader.line(&format!(" => {function}\n")));
        };
        check("my-prog-812", 0, 0, &["cap_capable", "chown_common"]);
        check("my-prog-812", 0, 0, &["cap_capable", "chown_common"]);
        check("sh-9", 0, 0, &["cap_capable"]);
        check("sh-9", 21, -1, &["cap_capable", "ns_capable"]);
        check("sh-9", 21, 0, &["cap_capable", "cap_vm_enough_memory", "mmap_region"]);
        check("onggi-oci-9", 21, 0, &["cap_capable"]);
        reader.line("CPU:0 [LOST 17 EVENTS]\n");
        reader.line("something else\n");
        let seen = reader.finish();
        let chown = Uses { granted: 3, refused: 0, programs: vec!["my-prog".into(), "sh".into()] };
        assert_eq!(seen.capabilities[&0], chown);
        assert_eq!((seen.capabilities[&21].granted, seen.capabilities[&21].refused), (0, 1));
        assert_eq!(seen.lost, 17);
    }

    #[test]
    fn the_version_tells_where_tracefs_does_not() {
        for (release, teller) in [
            ("6.1.0-28-amd64", Teller::Probes),
            ("6.13.9", Teller::Probes),
            ("6.14.0-rc1", Teller::Tracepoint),
            ("7.0", Teller::Tracepoint),
            ("", Teller::Probes),
        ] {
            assert_eq!(by_release(release), teller, "{release}");
        }
    }

    #[test]
    fn a_probe_tells_the_check_and_its_answer_each_with_a_stack() {
        let mut reader = Reader::default();
        let mut event = |task: &str, text: &str, stack: &str| {
            reader.line(&format!("   {task}   [001] .....  12.3: {text}\n"));
            reader.line(&format!("   {task}   [001] .....  12.3: <stack trace>\n"));
            reader.line(&format!(" => {stack}\n"));
        };
        let mut check = |cap: u32, ret: i32, stack: &str| {
            event("sh-9", &format!("cap_asked: (cap_capable+0x0/0x90) cred=0xffff8880 cap={cap}"), stack);
            event("sh-9", &format!("cap_answered: (security_capable+0x2d/0x50 <- cap_capable) ret={ret}"), "kretprobe");
        };
        check(0, 0, "chown_common");
        check(21, 0, "cap_vm_enough_memory");
        check(12, -1, "ns_capable");
        let seen = reader.finish();
        assert_eq!(seen.capabilities.keys().copied().collect::<Vec<_>>(), [0, 12]);
        assert_eq!((seen.capabilities[&0].granted, seen.capabilities[&12].refused), (1, 1));
    }
}
