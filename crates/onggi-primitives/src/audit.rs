//! Which capabilities processes really use: the kernel tells each check (tracepoint `capability:cap_capable`, Linux 6.14).
//!
//! An instance of tracefs of its own is made, and removed at the end: nobody else's tracing is touched. Only the given
//! processes and what they start are listened to. A check that succeeds is a use; one that fails was asked for and
//! refused, which programs often try without need. One kind of check is none: whenever memory is mapped, the kernel asks
//! for CAP_SYS_ADMIN only to know how much may be promised, and goes on either way. It is known by the stack of calls.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
};

use onggi_sys::{Errno, mount::FsContext};

use crate::{Kind, PrimitiveError, process};

/// Where tracefs is mounted, when it is.
const MOUNTED: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const EVENT: &str = "events/capability/cap_capable";
/// The inode of the first pid namespace (linux/proc_ns.h, `PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;
/// Kilobytes of trace buffer for each processor: some ten thousand checks between two looks.
const BUFFER: &str = "4096";
/// Bytes of one look.
const PIECE: usize = 1 << 16;
/// Pieces of one look. Where this process itself is listened to, looking makes new checks, without end.
const MAX_PIECES: usize = 64;
/// Who asks, when memory is mapped (mm/util.c, security/commoncap.c).
const MEMORY: &str = "vm_enough_memory";
/// `O_NONBLOCK`.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

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
    instance: PathBuf,
    /// None at the end: an instance cannot go while it is open.
    pipe: Option<File>,
    rest: Vec<u8>,
    reader: Reader,
    /// Keeps the filesystem.
    _tracefs: Option<OwnedFd>,
}

impl Audit {
    /// Begins to listen to processes, and to what they start from now on.
    ///
    /// # Errors
    /// Without root, or on a kernel that does not tell.
    pub fn start(pids: &[i32], ignored: &[&str]) -> Result<Self, PrimitiveError> {
        let (root, tracefs) = tracefs()?;
        if !root.join(EVENT).is_dir() {
            return Err(PrimitiveError::Refused {
                message: "this kernel does not tell of capability checks".to_owned(),
                hint: "Linux 6.14 and newer has the tracepoint capability:cap_capable; uname -r says what this one is"
                    .to_owned(),
            });
        }
        let instance = root.join(format!("instances/onggi-caps-{}", std::process::id()));
        fs::create_dir(&instance).map_err(failed(&instance))?;
        // From here on the instance is removed whatever happens.
        let made = Guard(instance);
        let numbers = global_numbers(&made.0, pids)?;
        set(&made.0, "buffer_size_kb", BUFFER)?;
        set(&made.0, "options/event-fork", "1")?;
        set(&made.0, "options/stacktrace", "1")?;
        for number in numbers {
            append(&made.0, "set_event_pid", &number.to_string())?;
        }
        set(&made.0, &format!("{EVENT}/enable"), "1")?;
        let path = made.0.join("trace_pipe");
        let pipe = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(&path).map_err(failed(&path))?;
        let reader = Reader { ignored: ignored.iter().map(|name| (*name).to_owned()).collect(), ..Reader::default() };
        let instance = made.keep();
        Ok(Self { instance, pipe: Some(pipe), rest: Vec::new(), reader, _tracefs: tracefs })
    }

    /// Reads what the kernel has told since the last time. To be called several times a second.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn look(&mut self) -> Result<(), PrimitiveError> {
        let mut piece = vec![0; PIECE];
        for _ in 0..MAX_PIECES {
            let Some(pipe) = &mut self.pipe else { return Ok(()) };
            match pipe.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    self.rest.extend_from_slice(&piece[..n]);
                    self.lines();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(&self.instance.join("trace_pipe"))(e)),
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

    fn lines(&mut self) {
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.reader.line(&String::from_utf8_lossy(&line));
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        // An instance that is still there is harmless: it is only memory, and `rmdir` removes it.
        let _ = set(&self.instance, &format!("{EVENT}/enable"), "0");
        self.pipe = None;
        let _ = fs::remove_dir(&self.instance);
    }
}

/// Removes an instance unless it is kept.
struct Guard(PathBuf);

impl Guard {
    fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_dir(&self.0);
        }
    }
}

/// Puts checks and the stacks that follow them together.
#[derive(Debug, Default)]
struct Reader {
    seen: Seen,
    /// Programs that are left out: those that prepare a container's process.
    ignored: Vec<String>,
    /// Checks whose stack has not come yet, by the process's number.
    waiting: BTreeMap<String, Check>,
    /// The stack that is being read: whose, and whether memory was mapped.
    stack: Option<(String, bool)>,
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
        if let Some(lost) = line.split_once("[LOST ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok())
        {
            self.seen.lost += lost;
        }
        let Some((task, _)) = line.split_once(" [") else { return };
        let Some((program, pid)) = task.trim().rsplit_once('-') else { return };
        if line.contains(": <stack trace>") {
            self.stack = Some((pid.trim().to_owned(), false));
        } else if let Some((_, check)) = line.split_once(": cap_capable: ") {
            self.check(program, pid.trim(), check);
        }
    }

    fn check(&mut self, program: &str, pid: &str, check: &str) {
        let number = |name: &str| check.rsplit_once(name)?.1.split([',', '\n']).next()?.trim().parse::<i64>().ok();
        let (Some(capability), Some(result)) = (number(", cap "), number(", ret ")) else { return };
        let Ok(capability) = u32::try_from(capability) else { return };
        if self.ignored.iter().any(|name| name == program) {
            return;
        }
        let check = Check { capability, granted: result == 0, program: program.to_owned() };
        // One whose stack was lost counts.
        if let Some(earlier) = self.waiting.insert(pid.to_owned(), check) {
            self.seen.note(earlier);
        }
    }

    fn end_stack(&mut self) {
        let Some((pid, memory)) = self.stack.take() else { return };
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

/// tracefs as it is mounted, or a mount of it that nobody else sees.
fn tracefs() -> Result<(PathBuf, Option<OwnedFd>), PrimitiveError> {
    if let Some(found) = MOUNTED.iter().map(Path::new).find(|dir| dir.join("instances").is_dir()) {
        return Ok((found.to_owned(), None));
    }
    let sys = |source| PrimitiveError::Sys { operation: "mount tracefs, by which the kernel tells".to_owned(), source };
    let mount = FsContext::open("tracefs").and_then(|context| context.mount(0)).map_err(sys)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())), Some(mount)))
}

/// The trace knows processes by their numbers in the first pid namespace. Where /proc shows another one, they are found
/// out: a process's oom_score_adj is written as it was, which the kernel tells with that number.
fn global_numbers(instance: &Path, pids: &[i32]) -> Result<Vec<i32>, PrimitiveError> {
    let own = process(std::process::id().cast_signed())?.namespaces.get(&Kind::Pid).copied();
    if own == Some(FIRST_PID_NAMESPACE) {
        return Ok(pids.to_vec());
    }
    set(instance, "events/oom/oom_score_adj_update/enable", "1")?;
    for pid in pids {
        let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
        let again = fs::read_to_string(&path).and_then(|value| fs::write(&path, value.trim()));
        match again {
            // It has gone meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
            other => other.map_err(failed(&path))?,
        }
    }
    set(instance, "events/oom/oom_score_adj_update/enable", "0")?;
    let path = instance.join("trace");
    let text = fs::read_to_string(&path).map_err(failed(&path))?;
    set(instance, "trace", "")?;
    let number = |line: &str| line.split_once("oom_score_adj_update: pid=")?.1.split(' ').next()?.parse().ok();
    Ok(text.lines().filter_map(number).collect())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PrimitiveError {
    let path = path.to_owned();
    move |source| PrimitiveError::Read { path, source }
}

fn set(instance: &Path, name: &str, value: &str) -> Result<(), PrimitiveError> {
    write(&instance.join(name), value, OpenOptions::new().write(true).truncate(true))
}

fn append(instance: &Path, name: &str, value: &str) -> Result<(), PrimitiveError> {
    write(&instance.join(name), value, OpenOptions::new().append(true))
}

fn write(path: &Path, value: &str, how: &OpenOptions) -> Result<(), PrimitiveError> {
    how.open(path).and_then(|mut file| file.write_all(value.as_bytes())).map_err(failed(path))
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
}
