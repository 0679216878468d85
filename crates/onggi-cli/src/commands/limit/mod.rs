//! `onggi limit`: limits for a command or a process that runs, without an image: what cpulimit, taskset, nice, ulimit
//! and systemd-run do.

mod io;
mod oom;
mod supervise;

use std::{os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use clap::Args;
use onggi_primitives::{
    cgroup::{Group, GroupError, Op, Place, Version, apply, device_numbers, is_key, layout, offered, places},
    limit::{
        Duty, Inside, LimitFacts, LimitPlan, LimitRequest, Means, Rlimit, Target, UnitRequest, apply_inside,
        apply_process, clean_stale, group_name, pid_namespace, plan_limit, start_service, start_time, systemd_facts,
    },
};
use onggi_spec::{ParseError, facts::CgroupLayout};

use super::{
    cgroup::{may_make, origins, with_descendants},
    explain::ExplainArg,
};
use crate::{error::CliError, render};

/// Arguments of `limit`.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// CPUs that may be used together: 0.5, 50%
    #[arg(long, value_name = "N")]
    cpus: Option<String>,
    /// Share of CPU time against neighbours, 1 to 10000; 100 is usual
    #[arg(long, value_name = "N")]
    cpu_weight: Option<String>,
    /// CPUs that may be used: 0-1,3
    #[arg(long, visible_alias = "cpuset", value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory beyond which the OOM killer comes: 100M
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Memory beyond which processes are slowed and memory is taken back (cgroup v2)
    #[arg(long, value_name = "SIZE")]
    memory_high: Option<String>,
    /// Memory that is taken back last
    #[arg(long, visible_alias = "memory-reservation", value_name = "SIZE")]
    memory_low: Option<String>,
    /// Memory and swap together; as much as --memory is no swap
    #[arg(long, value_name = "SIZE")]
    memory_swap: Option<String>,
    /// Processes and threads
    #[arg(long, visible_alias = "pids-limit", value_name = "N")]
    pids: Option<String>,
    /// Limits of a disk: /dev/sda:rbps=1M,wbps=1M,riops=100,wiops=100 (any of them), or weight=50
    #[arg(long, value_name = "DEVICE:LIMITS")]
    io: Vec<String>,
    /// Share of a busy disk, 1 to 10000; 100 is usual
    #[arg(long, value_name = "N")]
    io_weight: Option<String>,
    /// Bytes read per second: /dev/sda:1M
    #[arg(long, visible_alias = "device-read-bps", value_name = "DEVICE:RATE")]
    io_read_bps: Vec<String>,
    /// Bytes written per second
    #[arg(long, visible_alias = "device-write-bps", value_name = "DEVICE:RATE")]
    io_write_bps: Vec<String>,
    /// Reads per second: /dev/sda:100
    #[arg(long, visible_alias = "device-read-iops", value_name = "DEVICE:RATE")]
    io_read_iops: Vec<String>,
    /// Writes per second
    #[arg(long, visible_alias = "device-write-iops", value_name = "DEVICE:RATE")]
    io_write_iops: Vec<String>,
    /// Any other setting of `onggi cgroup set`
    #[arg(short = 'r', long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Priority, -20 (first) to 19 (last)
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    nice: Option<i32>,
    /// Limit of each process, as ulimit: nofile=1024, core=0:unlimited
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// A process that runs, instead of a command
    #[arg(long, value_name = "PID", conflicts_with = "command")]
    pid: Option<i32>,
    /// The processes that come from it too
    #[arg(long, requires = "pid")]
    children: bool,
    /// The number is that of a single thread (cgroup v1)
    #[arg(long, requires = "pid", conflicts_with = "children")]
    thread: bool,
    /// Name of a transient unit of systemd
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,
    /// Slice of the unit
    #[arg(long, value_name = "NAME")]
    slice: Option<String>,
    /// A scope around the command, which stays on this terminal, instead of a service
    #[arg(long)]
    scope: bool,
    /// The user's own systemd instead of the system's
    #[arg(long)]
    user: bool,
    /// No control group: limit single processes, as cpulimit, taskset and ulimit do
    #[arg(long, conflicts_with_all = ["unit", "slice", "scope"])]
    no_cgroup: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Command and its arguments
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

impl LimitArgs {
    /// Limits; the exit code is the command's.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let layout = layout()?;
        if self.explain.explain.is_none() {
            clean_stale(&layout);
        }
        let request = self.request()?;
        let facts = self.facts(layout, &request)?;
        let plan = plan_limit(&request, &facts)?;
        if self.explain.shown(&plan)? {
            return Ok(0);
        }
        carry_out(&plan)
    }

    fn request(&self) -> Result<LimitRequest, CliError> {
        let target = match self.pid {
            Some(pid) => {
                let pids = if self.children { with_descendants(&[pid])? } else { vec![pid] };
                let exists = PathBuf::from(format!("/proc/{pid}")).is_dir();
                if !exists {
                    return Err(GroupError::NoProcess { pid }.into());
                }
                Target::Processes { pids, thread: self.thread }
            }
            None if self.command.is_empty() => {
                return Err(CliError::usage("there is nothing to limit", "name a command, or a process with --pid"));
            }
            None => Target::Command(self.command.clone()),
        };
        let rlimits = self.ulimit.iter().map(|text| rlimit(text)).collect::<Result<_, _>>()?;
        Ok(LimitRequest { settings: self.settings()?, nice: self.nice, rlimits, target })
    }

    fn settings(&self) -> Result<Vec<(String, String)>, CliError> {
        let one = [
            ("cpus", &self.cpus),
            ("cpu-weight", &self.cpu_weight),
            ("cpuset", &self.cpuset_cpus),
            // Before the memory that they are set with: a limit below what is in use is a last resort.
            ("memory-high", &self.memory_high),
            ("memory", &self.memory),
            ("memory-low", &self.memory_low),
            ("memory-swap", &self.memory_swap),
            ("pids", &self.pids),
            ("io-weight", &self.io_weight),
        ];
        let many = [
            ("io-read-bps", &self.io_read_bps),
            ("io-write-bps", &self.io_write_bps),
            ("io-read-iops", &self.io_read_iops),
            ("io-write-iops", &self.io_write_iops),
        ];
        let pair = |key: &str, value: &String| (key.to_owned(), value.clone());
        let mut all: Vec<_> = one.iter().filter_map(|(key, value)| value.as_ref().map(|v| pair(key, v))).collect();
        all.extend(many.iter().flat_map(|(key, values)| values.iter().map(|v| pair(key, v))));
        for text in &self.io {
            all.extend(io::settings(text)?);
        }
        for text in &self.settings {
            let Some((key, value)) = text.split_once('=').filter(|(key, _)| is_key(key) || key.contains('.')) else {
                return Err(CliError::usage(format!("{text:?} is no setting"), "onggi cgroup set --help lists them"));
            };
            all.push((key.to_owned(), value.to_owned()));
        }
        Ok(all)
    }

    fn facts(&self, layout: CgroupLayout, request: &LimitRequest) -> Result<LimitFacts, CliError> {
        let devices = device_numbers(request.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())))?;
        let first = self.pid.unwrap_or_else(|| std::process::id().cast_signed());
        let means = self.means(&layout, request, first)?;
        let offered = match &means {
            Means::Group { places, .. } => offered(places),
            _ => Default::default(),
        };
        let process = rustix::process::Pid::from_raw(first);
        let nice = rustix::process::getpriority_process(process).unwrap_or(0);
        let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap_or_default();
        let cpus = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or("0").trim().to_owned();
        Ok(LimitFacts { layout, means, offered, devices, origins: origins(first), before: (nice, cpus) })
    }

    /// The best way that is open: as asked, a group of our own, the user's systemd, single processes.
    fn means(&self, layout: &CgroupLayout, request: &LimitRequest, first: i32) -> Result<Means, CliError> {
        if self.unit.is_some() || self.slice.is_some() || self.scope || self.user {
            return self.unit(self.scope);
        }
        if request.settings.is_empty() || self.no_cgroup {
            let why = if self.no_cgroup { "--no-cgroup" } else { "" };
            return Ok(Means::Process { why: why.into() });
        }
        let name = group_name(first, start_time(first).unwrap_or(0), self.pid.is_some(), pid_namespace());
        let why = match own_group(layout, &name, request)? {
            Ok(means) => return Ok(means),
            Err(why) => why,
        };
        let user_systemd = self.pid.is_none() && Version::of(layout) == Version::V2 && !is_root();
        match user_systemd.then(|| self.unit(true)) {
            Some(Ok(unit)) => Ok(unit),
            Some(Err(e)) => Ok(Means::Process { why: format!("{why}; {}", e.line()) }),
            None => Ok(Means::Process { why }),
        }
    }

    fn unit(&self, scope: bool) -> Result<Means, CliError> {
        let systemd = systemd_facts(is_root() && !self.user)?;
        let pid = std::process::id().cast_signed();
        let name =
            self.unit.clone().unwrap_or_else(|| group_name(pid, start_time(pid).unwrap_or(0), false, pid_namespace()));
        let directory = std::env::current_dir().map_err(CliError::CurrentDirectory)?.display().to_string();
        let program = self.command.first().map(|word| absolute(word)).unwrap_or_default();
        Ok(Means::Unit(UnitRequest { name, slice: self.slice.clone(), scope, systemd, directory, program }))
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A group for the settings, or why there cannot be one.
fn own_group(layout: &CgroupLayout, name: &str, request: &LimitRequest) -> Result<Result<Means, String>, CliError> {
    let version = Version::of(layout);
    if *layout == CgroupLayout::None {
        return Ok(Err("no cgroup filesystem is mounted".into()));
    }
    let path = match layout {
        // A user has what systemd or an administrator has given: the groups beside his own.
        CgroupLayout::V2 { own, .. } if !is_root() => {
            format!("{}/{name}", own.rsplit_once('/').map_or("", |(beside, _)| beside))
                .trim_start_matches('/')
                .to_owned()
        }
        _ => name.to_owned(),
    };
    let mut group = Group { controllers: Vec::new(), path: path.clone() };
    if version == Version::V1 {
        group.controllers = onggi_primitives::limit::controllers_v1(&request.settings);
    }
    let mut found = places(layout, &group)?;
    if version == Version::V1 {
        // With the group that sees every process and can kill them at once.
        let all = places(layout, &Group { controllers: Vec::new(), path: path.clone() })?;
        found.extend(all.into_iter().filter(|place: &Place| place.controllers.is_empty()));
    }
    match found.iter().find(|place| !may_make(place)) {
        Some(place) => Ok(Err(format!("no permission to make {}", place.dir.display()))),
        None => Ok(Ok(Means::Group { path, places: found })),
    }
}

/// Where a program is, as execvp(3) would find it.
fn absolute(word: &str) -> String {
    let is_program = |path: &PathBuf| path.is_file();
    if word.contains('/') {
        return std::path::absolute(word).map_or_else(|_| word.to_owned(), |p| p.display().to_string());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(word)).find(is_program);
    found.map_or_else(|| word.to_owned(), |p| p.display().to_string())
}

/// `nofile=1024`, `core=0:unlimited`.
fn rlimit(text: &str) -> Result<Rlimit, ParseError> {
    let wrong =
        |reason: &str| ParseError::new("ulimit", text, reason).hint("write NAME=SOFT[:HARD], as nofile=1024:2048");
    let (name, values) = text.split_once('=').ok_or_else(|| wrong("there is no value"))?;
    let long = format!("RLIMIT_{}", name.to_ascii_uppercase());
    let number = onggi_sys::rlimit::number(&long).ok_or_else(|| wrong("there is no such limit"))?;
    let value = |text: &str| match text {
        "unlimited" | "infinity" | "-1" => Ok(u64::MAX),
        n => n.parse().map_err(|_| wrong("a limit is a number or unlimited")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    match soft > hard {
        true => Err(wrong("the soft limit is above the hard one")),
        false => Ok(Rlimit { name: long, number, soft, hard }),
    }
}

fn carry_out(plan: &LimitPlan) -> Result<u8, CliError> {
    render::notes(&plan.notes)?;
    if let Some(unit) = &plan.service {
        start_service(unit)?;
        render::line(&format!("Running as unit: {}", unit.name))?;
        return Ok(0);
    }
    let end = End(plan);
    render::notes(&apply(&plan.setup)?)?;
    let code = match &plan.inside {
        // Nobody has to wait: this process itself becomes the command.
        Some(inside) if plan.cleanup.ops.is_empty() && plan.duty.is_none() => return become_command(inside),
        Some(inside) => supervise::command(inside, plan.duty)?,
        None => running(plan)?,
    };
    tell_oom(plan, code)?;
    end.finish()?;
    Ok(code)
}

/// 128 and SIGKILL: nobody says so but the group, which is still there.
fn tell_oom(plan: &LimitPlan, code: u8) -> Result<(), CliError> {
    let dirs = plan.cleanup.ops.iter().filter_map(|op| if let Op::Destroy { dir } = op { Some(dir) } else { None });
    let told = (code == 137).then(|| dirs.filter_map(|dir| oom::told(dir)).next()).flatten();
    Ok(render::notes(told.as_slice())?)
}

/// Removes the group, also when something fails on the way.
struct End<'p>(&'p LimitPlan);

impl End<'_> {
    fn finish(self) -> Result<(), CliError> {
        let plan = self.0;
        std::mem::forget(self);
        Ok(apply(&plan.cleanup).map(drop)?)
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        // What led here is the failure to report.
        let _ = apply(&self.0.cleanup);
    }
}

/// Processes that run: told once, or kept to their share until they end.
fn running(plan: &LimitPlan) -> Result<u8, CliError> {
    if let Some(told) = &plan.told {
        plan.processes.iter().try_for_each(|pid| apply_process(*pid, told))?;
    }
    plan.undo.iter().try_for_each(|line| render::line(&format!("to undo it: {line}")))?;
    match plan.duty {
        Some(nano) => supervise::processes(Duty::new(&plan.processes, nano)),
        None => Ok(0),
    }
}

fn become_command(inside: &Inside) -> Result<u8, CliError> {
    apply_inside(inside)?;
    let (program, arguments) =
        inside.command.split_first().ok_or_else(|| CliError::usage("there is no command", "name one"))?;
    let source = Command::new(program).args(arguments).exec();
    Err(CliError::Execute { program: program.clone(), source })
}

/// What the child of `limit` gets: its part of the plan.
#[derive(Debug, Args)]
pub(crate) struct InsideArgs {
    /// As JSON
    plan: String,
}

impl InsideArgs {
    /// Becomes the command.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        become_command(&serde_json::from_str(&self.plan)?)
    }
}
