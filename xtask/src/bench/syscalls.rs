//! `cargo xtask bench --syscalls`: where the time of one `onggi-oci run` goes, system call by system call,
//! with the floor program beside it.
//!
//! strace(1) stops the process at every call, which costs the same for each. The cheapest call of all is taken
//! for that cost and subtracted, so that a figure is what a call takes above an empty one. Over several runs the
//! lower quartile counts: what is added by others' work on the machine only makes calls longer.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::rows::Bench;
use crate::{
    Outcome,
    process::{line, run_quietly},
};

/// One call as strace shows it.
#[derive(Debug, PartialEq)]
struct Call {
    pid: u32,
    name: String,
    arguments: String,
    microseconds: f64,
}

/// Calls of one name in one phase of one run.
#[derive(Debug, Default, Clone)]
struct Sum {
    count: usize,
    microseconds: f64,
}

type Key = (&'static str, String);
type Run = BTreeMap<Key, Sum>;

/// Traces and prints the table.
pub(super) fn table(bench: &Bench) -> Outcome {
    let mut notes = Vec::new();
    let mut runtime = bench.own_runtime(&mut notes)?;
    let log = bench.dir.join("strace");
    let mut ours = Vec::new();
    let mut floors = Vec::new();
    for _ in 0..bench.samples {
        let id = runtime.fresh_id();
        let command = runtime.run_command(&id);
        ours.push(sums(&traced(&command, &log)?));
        if let Some(floor) = &bench.floor {
            let mut command = Command::new(floor);
            command.arg(&bench.image.rootfs).arg("/bin/true");
            floors.push(sums(&traced(&command, &log)?));
        }
    }
    print!("{}", markdown(&merge(&ours), &merge(&floors)));
    Ok(())
}

fn traced(command: &Command, log: &Path) -> Outcome<Vec<Call>> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-T", "-s", "64", "-o"]).arg(log).arg(command.get_program()).args(command.get_args());
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    run_quietly(&mut strace).map_err(|e| format!("{e} ({})", line(command)))?;
    let text = fs::read_to_string(log).map_err(|e| format!("read {}: {e}", log.display()))?;
    Ok(parse(&text))
}

/// `7 openat(AT_FDCWD, "x", O_RDONLY) = 3 <0.000021>`, or the two halves of a call that another interrupted.
fn parse(text: &str) -> Vec<Call> {
    let mut begun: HashMap<u32, (String, String)> = HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.trim_start().split_once(' ') else { continue };
        let (Ok(pid), rest) = (pid.parse::<u32>(), rest.trim_start()) else { continue };
        if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
            let (name, arguments) = head.split_once('(').unwrap_or((head, ""));
            begun.insert(pid, (name.to_owned(), arguments.to_owned()));
            continue;
        }
        let Some(microseconds) = duration(rest) else { continue };
        let (name, arguments) = match rest.strip_prefix("<... ").and_then(|_| begun.remove(&pid)) {
            Some(head) => head,
            None => match rest.split_once('(') {
                Some((name, arguments)) => (name.to_owned(), arguments.to_owned()),
                None => continue,
            },
        };
        calls.push(Call { pid, name, arguments, microseconds });
    }
    calls
}

fn duration(line: &str) -> Option<f64> {
    let seconds: f64 = line.strip_suffix('>')?.rsplit_once('<')?.1.parse().ok()?;
    Some(seconds * 1e6)
}

/// Names of calls that only wait for somebody else: their time is another process's work.
const WAITING: [&str; 6] = ["recvmsg", "ppoll", "poll", "wait4", "waitid", "read"];

/// Which part of the run each call belongs to.
fn phases(calls: &[Call]) -> Vec<&'static str> {
    let first = calls.first().map_or(0, |call| call.pid);
    let mut executed = 0;
    let mut cloned = false;
    let mut child_runs = false;
    let mut ended = false;
    let phase = |call: &Call| {
        if call.pid != first {
            child_runs |= call.name.starts_with("execve");
            return if child_runs { "program" } else { "child: namespaces, mounts, rights" };
        }
        executed += usize::from(call.name.starts_with("execve"));
        cloned |= call.name == "clone3";
        ended |= cloned && call.name == "wait4";
        match (executed, cloned, ended) {
            (_, _, true) => "runtime: delete",
            (_, true, _) => "runtime: beside the child",
            (0 | 1, ..) => "runtime: self-protection",
            _ => "runtime: configuration, plan, cgroups",
        }
    };
    calls.iter().map(phase).collect()
}

fn sums(calls: &[Call]) -> Run {
    let cheapest = calls.iter().map(|call| call.microseconds).fold(f64::INFINITY, f64::min);
    let mut run = Run::new();
    for (call, phase) in calls.iter().zip(phases(calls)) {
        // A read of a pipe or socket waits, one of a file does not; they differ by a lot.
        let waits = WAITING.contains(&call.name.as_str()) && call.microseconds > 300.0;
        let name = match (waits, place(call)) {
            (true, _) => format!("{} (waits)", call.name),
            (false, Some(place)) => format!("{} {place}", call.name),
            (false, None) => call.name.clone(),
        };
        let sum = run.entry((phase, name)).or_default();
        sum.count += 1;
        sum.microseconds += if waits { 0.0 } else { call.microseconds - cheapest };
    }
    run
}

/// The filesystem that makes a call dear.
fn place(call: &Call) -> Option<&'static str> {
    let has = |text: &str| call.arguments.contains(text);
    [("/sys/fs/cgroup", "(cgroup)"), ("\"/proc", "(proc)"), ("/run/", "(state)")]
        .into_iter()
        .find_map(|(text, place)| has(text).then_some(place))
}

/// The lower quartile of every sum.
fn merge(runs: &[Run]) -> Run {
    let mut all: BTreeMap<Key, Vec<&Sum>> = BTreeMap::new();
    for (key, sum) in runs.iter().flatten() {
        all.entry(key.clone()).or_default().push(sum);
    }
    let quartile = |mut sums: Vec<&Sum>| {
        sums.sort_by(|a, b| a.microseconds.total_cmp(&b.microseconds));
        sums.get(sums.len() / 4).map(|sum| (*sum).clone()).unwrap_or_default()
    };
    all.into_iter().map(|(key, sums)| (key, quartile(sums))).collect()
}

fn total(run: &Run) -> Sum {
    run.values()
        .fold(Sum::default(), |a, b| Sum { count: a.count + b.count, microseconds: a.microseconds + b.microseconds })
}

fn markdown(ours: &Run, floor: &Run) -> String {
    let (all, least) = (total(ours), total(floor));
    let mut text = format!(
        "\n`onggi-oci run`: {} calls, {:.0} µs above empty calls; floor: {} calls, {:.0} µs.\n",
        all.count, all.microseconds, least.count, least.microseconds
    );
    text += "\n| Phase | calls | µs | share |\n|---|---|---|---|\n";
    let mut by_phase: BTreeMap<&str, Run> = BTreeMap::new();
    for (key, sum) in ours {
        by_phase.entry(key.0).or_default().insert(key.clone(), sum.clone());
    }
    let mut phases: Vec<(&str, Sum)> = by_phase.iter().map(|(phase, run)| (*phase, total(run))).collect();
    phases.sort_by(|a, b| b.1.microseconds.total_cmp(&a.1.microseconds));
    for (phase, sum) in phases {
        let share = 100.0 * sum.microseconds / all.microseconds;
        text += &format!("| {phase} | {} | {:.0} | {share:.0} % |\n", sum.count, sum.microseconds);
    }
    text += "\n| Call | phase | count | µs | floor: count | floor: µs |\n|---|---|---|---|---|---|\n";
    let mut calls: Vec<(&Key, &Sum)> = ours.iter().collect();
    calls.sort_by(|a, b| b.1.microseconds.total_cmp(&a.1.microseconds));
    for ((phase, name), sum) in calls.into_iter().filter(|(_, sum)| sum.microseconds >= 5.0) {
        let same = floor.iter().filter(|((_, n), _)| n.split(' ').next() == name.split(' ').next());
        let floor = same.fold(Sum::default(), |a, (_, b)| Sum {
            count: a.count + b.count,
            microseconds: a.microseconds + b.microseconds,
        });
        let beside = match floor.count {
            0 => "– | –".to_owned(),
            count => format!("{count} | {:.0}", floor.microseconds),
        };
        text += &format!("| {name} | {phase} | {} | {:.0} | {beside} |\n", sum.count, sum.microseconds);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
9     execve(\"./x\", [\"./x\"], 0x7ffc /* 3 vars */) = 0 <0.000443>
9     getuid()                          = 0 <0.000010>
9     execveat(3, \"\", [\"./x\"], 0x55, AT_EMPTY_PATH) = 0 <0.000470>
9     mkdir(\"/sys/fs/cgroup/cpu/x1\", 0755) = 0 <0.000080>
9     clone3({flags=CLONE_NEWNS}, 88) = 10 <0.000500>
9     recvmsg(15,  <unfinished ...>
10    setsid()                          = 1 <0.000041>
9     <... recvmsg resumed>{msg_name=0x7f}, 0) = 1 <0.043242>
10    execve(\"/bin/true\", [\"true\"], 0x5 /* 2 vars */) = 0 <0.000433>
10    brk(NULL)                         = 0x2 <0.000016>
10    +++ exited with 0 +++
9     wait4(-1, [{WIFEXITED(s)}], WNOHANG, NULL) = 10 <0.000087>
";

    #[test]
    fn halves_of_a_call_are_joined_and_phases_follow_the_processes() {
        let calls = parse(LOG);
        let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
        let expected =
            ["execve", "getuid", "execveat", "mkdir", "clone3", "setsid", "recvmsg", "execve", "brk", "wait4"];
        assert_eq!(names, expected);
        let phases = phases(&calls);
        assert_eq!(phases[1], "runtime: self-protection");
        assert_eq!(phases[3], "runtime: configuration, plan, cgroups");
        assert_eq!(phases[5], "child: namespaces, mounts, rights");
        assert_eq!(phases[8], "program");
        assert_eq!(phases[9], "runtime: delete");
    }

    #[test]
    fn the_cost_of_tracing_is_subtracted_and_waiting_is_not_work() {
        let run = sums(&parse(LOG));
        let of = |phase: &'static str, name: &str| run[&(phase, name.to_owned())].microseconds.round();
        assert_eq!(of("runtime: configuration, plan, cgroups", "mkdir (cgroup)"), 70.0);
        assert_eq!(of("runtime: beside the child", "recvmsg (waits)"), 0.0);
        let text = markdown(&merge(&[run.clone(), run]), &Run::new());
        assert!(text.contains("| mkdir (cgroup) | runtime: configuration, plan, cgroups | 1 | 70 | – | – |"), "{text}");
    }
}
