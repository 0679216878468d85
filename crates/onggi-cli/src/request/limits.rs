//! Limits: of control groups, which `update` can change too, and of each process.

use clap::Args;
use onggi_spec::{
    ParseError,
    quantity::{parse_cpus, parse_memory, parse_pids, parse_size},
    resources::{BlockLimitKind, Resources, parse_block_limit, parse_memory_swap},
    ulimit::{Ulimit, parse_ulimit},
};

use super::said;

/// Limits that a container can be given, and given anew while it runs.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ResourceArgs {
    /// Number of CPUs
    #[arg(long, value_name = "DECIMAL", allow_hyphen_values = true)]
    cpus: Option<String>,
    /// Relative weight of its CPU time, 2 to 262144; 1024 is what others have
    #[arg(short = 'c', long, value_name = "N", allow_hyphen_values = true)]
    cpu_shares: Option<String>,
    /// Period of --cpu-quota in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_period: Option<String>,
    /// CPU time in each period in microseconds; -1 is unlimited
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<String>,
    /// Period of real-time tasks in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_period: Option<String>,
    /// Time of real-time tasks in each of their periods in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<String>,
    /// CPUs that may be used, as in 0-2,5
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, as in 0-1
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Limit of memory and swap together; -1 is unlimited swap [default: twice the memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory that it keeps when the host runs short
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Most processes and threads; -1 is unlimited [default: 4096]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<String>,
    /// Relative weight of its block I/O, 10 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    blkio_weight: Option<String>,
}

impl ResourceArgs {
    /// What was asked for. 0 is nothing said, as with Docker.
    pub(crate) fn resources(&self) -> Result<Resources, ParseError> {
        let Self {
            cpus,
            cpu_shares,
            cpu_period,
            cpu_quota,
            cpu_rt_period,
            cpu_rt_runtime,
            cpuset_cpus,
            cpuset_mems,
            memory,
            memory_swap,
            memory_reservation,
            pids_limit,
            blkio_weight,
        } = self;
        let size = |text: &String| parse_size(text).map(|bytes| Some(bytes).filter(|bytes| *bytes != 0));
        Ok(Resources {
            nano_cpus: cpus.as_deref().map(parse_cpus).transpose()?.flatten(),
            cpu_shares: number("--cpu-shares", cpu_shares.as_deref())?,
            cpu_period: number("--cpu-period", cpu_period.as_deref())?,
            cpu_quota: number("--cpu-quota", cpu_quota.as_deref())?,
            cpu_rt_period: number("--cpu-rt-period", cpu_rt_period.as_deref())?,
            cpu_rt_runtime: number("--cpu-rt-runtime", cpu_rt_runtime.as_deref())?,
            cpuset_cpus: said(cpuset_cpus.clone()),
            cpuset_mems: said(cpuset_mems.clone()),
            memory: memory.as_deref().map(parse_memory).transpose()?.flatten(),
            memory_swap: memory_swap.as_deref().map(parse_memory_swap).transpose()?.flatten(),
            memory_reservation: memory_reservation.as_ref().map(size).transpose()?.flatten(),
            pids: pids_limit.as_deref().map(parse_pids).transpose()?,
            blkio_weight: number("--blkio-weight", blkio_weight.as_deref())?,
            ..Resources::default()
        })
    }
}

/// A number of an option; 0 is nothing said.
fn number<T: std::str::FromStr + Default + PartialEq>(
    option: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, ParseError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let value: T = text.parse().map_err(|_| ParseError::new("number", text, format!("{option} takes a number")))?;
    Ok(Some(value).filter(|value| *value != T::default()))
}

/// Limits that stay as they were made.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FixedLimitArgs {
    /// Readiness to swap, 0 to 100 (cgroup v1)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    memory_swappiness: Option<String>,
    /// Let processes wait for memory instead of killing them (cgroup v1)
    #[arg(long)]
    oom_kill_disable: bool,
    /// What the kernel kills first when the host runs out of memory: -1000 (never) to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    oom_score_adj: Option<String>,
    /// Relative weight for a block device
    #[arg(long, value_name = "DEVICE:WEIGHT", allow_hyphen_values = true)]
    blkio_weight_device: Vec<String>,
    /// Bytes a second that are read from a block device
    #[arg(long, value_name = "DEVICE:SIZE", allow_hyphen_values = true)]
    device_read_bps: Vec<String>,
    /// Bytes a second that are written to a block device
    #[arg(long, value_name = "DEVICE:SIZE", allow_hyphen_values = true)]
    device_write_bps: Vec<String>,
    /// Operations a second that read from a block device
    #[arg(long, value_name = "DEVICE:N", allow_hyphen_values = true)]
    device_read_iops: Vec<String>,
    /// Operations a second that write to a block device
    #[arg(long, value_name = "DEVICE:N", allow_hyphen_values = true)]
    device_write_iops: Vec<String>,
    /// Limit of each process (getrlimit(2)); -1 is unlimited
    #[arg(long, value_name = "NAME=SOFT[:HARD]", allow_hyphen_values = true)]
    ulimit: Vec<String>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    shm_size: Option<String>,
}

/// What [`FixedLimitArgs`] ask for beside control groups.
#[derive(Debug, Default)]
pub(super) struct ProcessLimits {
    pub(super) oom_score_adj: Option<i32>,
    pub(super) ulimits: Vec<Ulimit>,
    pub(super) shm_size: Option<u64>,
}

impl FixedLimitArgs {
    /// All limits: of control groups, with those of `common`, and of processes.
    pub(super) fn with(self, common: &ResourceArgs) -> Result<(Resources, ProcessLimits), ParseError> {
        let mut resources = common.resources()?;
        let Self {
            memory_swappiness,
            oom_kill_disable,
            oom_score_adj,
            blkio_weight_device,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
            ulimit,
            shm_size,
        } = self;
        // -1 is Docker's default; 0 is a value.
        let swappiness = memory_swappiness.filter(|text| text != "-1" && !text.is_empty());
        let swappiness = swappiness.map(|text| {
            text.parse().map_err(|_| ParseError::new("number", &text, "--memory-swappiness takes a number of 0 to 100"))
        });
        resources.memory_swappiness = swappiness.transpose()?;
        resources.oom_kill_disable = oom_kill_disable;
        use BlockLimitKind as Kind;
        for (kind, list) in [
            (Kind::Weight, blkio_weight_device),
            (Kind::ReadBytes, device_read_bps),
            (Kind::WriteBytes, device_write_bps),
            (Kind::ReadOperations, device_read_iops),
            (Kind::WriteOperations, device_write_iops),
        ] {
            for text in list {
                resources.block_devices.push(parse_block_limit(kind, &text)?);
            }
        }
        let mut ulimits: Vec<Ulimit> = Vec::new();
        for text in ulimit {
            let limit = parse_ulimit(&text)?;
            ulimits.retain(|other| other.name != limit.name);
            ulimits.push(limit);
        }
        let shm_size = said(shm_size).map(|text| parse_size(&text)).transpose()?.filter(|bytes| *bytes != 0);
        resources.check()?;
        Ok((resources, ProcessLimits { oom_score_adj: score(oom_score_adj)?, ulimits, shm_size }))
    }
}

fn score(text: Option<String>) -> Result<Option<i32>, ParseError> {
    let Some(text) = said(text) else { return Ok(None) };
    let value = text.parse().ok().filter(|n| (-1000..=1000).contains(n));
    let wrong = || ParseError::new("OOM score", &text, "the range is -1000 to 1000");
    value.map(|n| Some(n).filter(|n| *n != 0)).ok_or_else(wrong)
}
