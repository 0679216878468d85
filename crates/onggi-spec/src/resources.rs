//! Limits of one container, as `run` and `update` take them: Docker's options, ranges and contradictions.

use serde::{Deserialize, Serialize};

use crate::{
    ParseError,
    quantity::{MIN_MEMORY, parse_size},
};

/// Limits of one container. What is absent is not limited, but for [`pids`](Self::pids).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// CPUs in units of 10^-9 CPU (`--cpus 1.5` is 1_500_000_000).
    pub nano_cpus: Option<u64>,
    /// Relative weight, 2 to 262144; 1024 is what everybody has.
    pub cpu_shares: Option<u64>,
    /// Period of the quota in microseconds, 1000 to 1000000.
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU time in each period; -1 is unlimited.
    pub cpu_quota: Option<i64>,
    /// Period of real-time tasks in microseconds.
    pub cpu_rt_period: Option<u64>,
    /// Microseconds that real-time tasks may run in each of their periods.
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs that may be used, as a list (cpuset(7)).
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, as a list.
    pub cpuset_mems: Option<String>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory and swap together in bytes; -1 is unlimited swap. Twice the memory when absent.
    pub memory_swap: Option<i64>,
    /// Bytes to which memory is reclaimed when the host runs short of it.
    pub memory_reservation: Option<u64>,
    /// Readiness to swap, 0 to 100 (cgroup v1 alone).
    pub memory_swappiness: Option<u64>,
    /// Processes wait for memory instead of being killed (cgroup v1 alone).
    pub oom_kill_disable: bool,
    /// Processes and threads; -1 is unlimited; the default profile's 4096 when absent.
    pub pids: Option<i64>,
    /// Relative weight of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Limits of single block devices.
    pub block_devices: Vec<BlockLimit>,
}

/// A limit of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockLimit {
    /// Of what.
    pub kind: BlockLimitKind,
    /// The device on the host: `/dev/sda`.
    pub path: String,
    /// Bytes or operations a second, or a weight.
    pub value: u64,
}

/// What a [`BlockLimit`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockLimitKind {
    /// `--blkio-weight-device`.
    Weight,
    /// `--device-read-bps`.
    ReadBytes,
    /// `--device-write-bps`.
    WriteBytes,
    /// `--device-read-iops`.
    ReadOperations,
    /// `--device-write-iops`.
    WriteOperations,
}

impl BlockLimitKind {
    /// The command line's option.
    pub fn option(self) -> &'static str {
        match self {
            Self::Weight => "--blkio-weight-device",
            Self::ReadBytes => "--device-read-bps",
            Self::WriteBytes => "--device-write-bps",
            Self::ReadOperations => "--device-read-iops",
            Self::WriteOperations => "--device-write-iops",
        }
    }
}

const LIMIT: &str = "resource limit";

fn refused(option: &str, reason: impl Into<String>) -> ParseError {
    ParseError::new(LIMIT, option, reason)
}

/// Reads `--memory-swap`: a size, or -1 for unlimited swap; 0 is nothing said.
///
/// # Errors
/// Outside the grammar.
pub fn parse_memory_swap(text: &str) -> Result<Option<i64>, ParseError> {
    match text {
        "-1" => Ok(Some(-1)),
        _ => Ok(i64::try_from(parse_size(text)?).ok().filter(|bytes| *bytes != 0)),
    }
}

/// Reads `DEVICE:VALUE` of a device's limit.
///
/// # Errors
/// Outside the grammar.
pub fn parse_block_limit(kind: BlockLimitKind, text: &str) -> Result<BlockLimit, ParseError> {
    let err = |reason: &str| ParseError::new("device limit", text, reason).hint("write /dev/NAME:VALUE");
    let (path, value) = text.rsplit_once(':').ok_or_else(|| err("the value is missing"))?;
    if !path.starts_with("/dev/") || path.contains('\0') {
        return Err(err("the device must be a path below /dev"));
    }
    let value = match kind {
        BlockLimitKind::ReadBytes | BlockLimitKind::WriteBytes => parse_size(value)?,
        BlockLimitKind::ReadOperations | BlockLimitKind::WriteOperations => {
            value.parse().map_err(|_| err("the rate must be a positive number"))?
        }
        BlockLimitKind::Weight => {
            let weight = value.parse().ok().filter(|w| *w == 0 || (10..=1000).contains(w));
            weight.ok_or_else(|| err("the weight must be between 10 and 1000"))?
        }
    };
    Ok(BlockLimit { kind, path: path.to_owned(), value })
}

/// Numbers of a list as in `0-2,5` (cpuset(7)), ascending and each once; `None` outside the grammar or above 8191, which is the
/// most CPUs that Linux can be built for.
pub fn parse_list(text: &str) -> Option<Vec<u32>> {
    let number = |t: &str| t.parse::<u32>().ok().filter(|n| *n < 8192 && !t.starts_with('+'));
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return None;
        }
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

impl Resources {
    /// Takes over what `change` says: the limits of `update`.
    pub fn merge(&mut self, change: Self) {
        fn put<T>(own: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *own = new;
            }
        }
        let Self {
            nano_cpus,
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
            memory_swappiness,
            oom_kill_disable,
            pids,
            blkio_weight,
            block_devices,
        } = change;
        put(&mut self.nano_cpus, nano_cpus);
        put(&mut self.cpu_shares, cpu_shares);
        put(&mut self.cpu_period, cpu_period);
        put(&mut self.cpu_quota, cpu_quota);
        put(&mut self.cpu_rt_period, cpu_rt_period);
        put(&mut self.cpu_rt_runtime, cpu_rt_runtime);
        put(&mut self.cpuset_cpus, cpuset_cpus);
        put(&mut self.cpuset_mems, cpuset_mems);
        put(&mut self.memory, memory);
        put(&mut self.memory_swap, memory_swap);
        put(&mut self.memory_reservation, memory_reservation);
        put(&mut self.memory_swappiness, memory_swappiness);
        self.oom_kill_disable |= oom_kill_disable;
        put(&mut self.pids, pids);
        put(&mut self.blkio_weight, blkio_weight);
        self.block_devices.extend(block_devices);
    }

    /// The command line's option of the first limit that was asked for.
    pub fn first_option(&self) -> Option<&'static str> {
        let Self {
            nano_cpus,
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
            memory_swappiness,
            oom_kill_disable,
            pids,
            blkio_weight,
            block_devices,
        } = self;
        let named = [
            (nano_cpus.is_some(), "--cpus"),
            (memory.is_some(), "--memory"),
            (pids.is_some(), "--pids-limit"),
            (cpu_shares.is_some(), "--cpu-shares"),
            (cpu_period.is_some(), "--cpu-period"),
            (cpu_quota.is_some(), "--cpu-quota"),
            (cpu_rt_period.is_some(), "--cpu-rt-period"),
            (cpu_rt_runtime.is_some(), "--cpu-rt-runtime"),
            (cpuset_cpus.is_some(), "--cpuset-cpus"),
            (cpuset_mems.is_some(), "--cpuset-mems"),
            (memory_swap.is_some(), "--memory-swap"),
            (memory_reservation.is_some(), "--memory-reservation"),
            (memory_swappiness.is_some(), "--memory-swappiness"),
            (*oom_kill_disable, "--oom-kill-disable"),
            (blkio_weight.is_some(), "--blkio-weight"),
        ];
        let device = block_devices.first().map(|limit| limit.kind.option());
        named.iter().find(|(asked, _)| *asked).map(|(_, option)| *option).or(device)
    }

    /// Memory and swap together in bytes, -1 for unlimited swap: as much swap as memory on top, unless said otherwise.
    pub fn swap(&self) -> Option<i64> {
        let twice = || self.memory.map(|bytes| i64::try_from(bytes.saturating_mul(2)).unwrap_or(i64::MAX));
        self.memory_swap.or_else(twice)
    }

    /// Values outside their range, and limits that contradict each other.
    ///
    /// # Errors
    /// Each names its option.
    pub fn check(&self) -> Result<(), ParseError> {
        self.check_cpu()?;
        self.check_memory()?;
        match self.blkio_weight {
            Some(weight) if !(10..=1000).contains(&weight) => {
                Err(refused("--blkio-weight", "the range of blkio weight is from 10 to 1000"))
            }
            _ => Ok(()),
        }
    }

    fn check_cpu(&self) -> Result<(), ParseError> {
        let both = |option| refused(option, "it says the same as --cpus").hint("use one of them");
        match self {
            Self { nano_cpus: Some(_), cpu_period: Some(_), .. } => return Err(both("--cpu-period")),
            Self { nano_cpus: Some(_), cpu_quota: Some(_), .. } => return Err(both("--cpu-quota")),
            _ => {}
        }
        if self.cpu_period.is_some_and(|period| !(1000..=1_000_000).contains(&period)) {
            return Err(refused("--cpu-period", "a period is 1000 (1 ms) to 1000000 (1 s)"));
        }
        if self.cpu_quota.is_some_and(|quota| quota != -1 && quota < 1000) {
            return Err(refused("--cpu-quota", "a quota is at least 1000 (1 ms), or -1 for no limit"));
        }
        if self.cpu_shares.is_some_and(|shares| !(2..=262_144).contains(&shares)) {
            return Err(refused("--cpu-shares", "shares are 2 to 262144"));
        }
        for (option, list) in [("--cpuset-cpus", &self.cpuset_cpus), ("--cpuset-mems", &self.cpuset_mems)] {
            if list.as_deref().is_some_and(|text| parse_list(text).is_none()) {
                return Err(refused(
                    option,
                    format!("{:?} is no list of numbers", list.as_deref().unwrap_or_default()),
                )
                .hint("write numbers and ranges: 0-2,5"));
            }
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), ParseError> {
        let swap = self.memory_swap.filter(|swap| *swap > 0).map(i64::unsigned_abs);
        match (self.memory, swap) {
            (None, Some(_)) => {
                return Err(refused("--memory-swap", "it limits memory and swap together, so it needs --memory")
                    .hint("give --memory as well"));
            }
            (Some(memory), Some(swap)) if swap < memory => {
                return Err(refused("--memory-swap", "it is memory and swap together, and less than --memory")
                    .hint("give at least as much as --memory; -1 is unlimited swap"));
            }
            _ => {}
        }
        if self.memory_reservation.is_some_and(|bytes| bytes < MIN_MEMORY) {
            return Err(refused("--memory-reservation", "the least reservation is 6m"));
        }
        if self.memory.zip(self.memory_reservation).is_some_and(|(limit, reserved)| limit < reserved) {
            return Err(refused("--memory-reservation", "it is more than --memory"));
        }
        if self.memory_swappiness.is_some_and(|value| value > 100) {
            return Err(refused("--memory-swappiness", "the range is 0 to 100"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_those_of_cpuset() {
        assert_eq!(parse_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list("3,1,1-2"), Some(vec![1, 2, 3]));
        for bad in ["", "a", "1-", "-1", "2-1", "1,,2", "0-8192", "+1", "1 2", "0-4294967295"] {
            assert_eq!(parse_list(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn swap_is_a_size_or_unlimited() {
        assert_eq!(parse_memory_swap("-1"), Ok(Some(-1)));
        assert_eq!(parse_memory_swap("0"), Ok(None));
        assert_eq!(parse_memory_swap("1g"), Ok(Some(1 << 30)));
        assert!(parse_memory_swap("-2").is_err());
    }

    #[test]
    fn limits_of_devices_have_a_device_and_a_value() {
        let read = |text| parse_block_limit(BlockLimitKind::ReadBytes, text);
        let limit = read("/dev/sda:1mb").expect("parses");
        assert_eq!((limit.path.as_str(), limit.value), ("/dev/sda", 1 << 20));
        assert!(parse_block_limit(BlockLimitKind::Weight, "/dev/sda:10").is_ok());
        for bad in ["/dev/sda", "sda:1", "/dev/sda:x", "/dev/sda:-1", ":1", ""] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert!(parse_block_limit(BlockLimitKind::Weight, "/dev/sda:5").is_err());
        assert!(parse_block_limit(BlockLimitKind::ReadOperations, "/dev/sda:1k").is_err());
    }

    #[test]
    fn contradictions_name_their_option() {
        let of = |change: fn(&mut Resources)| {
            let mut resources = Resources { memory: Some(64 << 20), ..Resources::default() };
            change(&mut resources);
            resources.check().map_err(|e| e.text)
        };
        assert_eq!(of(|_| {}), Ok(()));
        assert_eq!(of(|r| r.memory_swap = Some(-1)), Ok(()));
        assert_eq!(of(|r| r.memory_swap = Some(128 << 20)), Ok(()));
        type Change = fn(&mut Resources);
        let bad: [(Change, &str); 12] = [
            (|r| r.memory_swap = Some(1 << 20), "--memory-swap"),
            (|r| (r.memory, r.memory_swap) = (None, Some(1 << 30)), "--memory-swap"),
            (|r| r.memory_reservation = Some(128 << 20), "--memory-reservation"),
            (|r| r.memory_reservation = Some(1), "--memory-reservation"),
            (|r| r.memory_swappiness = Some(101), "--memory-swappiness"),
            (|r| (r.nano_cpus, r.cpu_period) = (Some(1), Some(1000)), "--cpu-period"),
            (|r| (r.nano_cpus, r.cpu_quota) = (Some(1), Some(1000)), "--cpu-quota"),
            (|r| r.cpu_period = Some(999), "--cpu-period"),
            (|r| r.cpu_quota = Some(10), "--cpu-quota"),
            (|r| r.cpu_shares = Some(1), "--cpu-shares"),
            (|r| r.cpuset_cpus = Some("x".into()), "--cpuset-cpus"),
            (|r| r.blkio_weight = Some(9), "--blkio-weight"),
        ];
        for (change, option) in bad {
            assert_eq!(of(change), Err(option.to_owned()));
        }
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let mut own = Resources { memory: Some(1 << 30), pids: Some(5), ..Resources::default() };
        own.merge(Resources { memory: Some(2 << 30), cpu_shares: Some(512), ..Resources::default() });
        assert_eq!((own.memory, own.pids, own.cpu_shares), (Some(2 << 30), Some(5), Some(512)));
        assert_eq!(own.first_option(), Some("--memory"));
        assert_eq!(Resources::default().first_option(), None);
    }
}
