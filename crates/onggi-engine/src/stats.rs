//! `stats`: what a container uses at one moment, in the kernel's own counters. Rates are made by whoever looks twice.

use std::{path::Path, time::Instant};

use onggi_spec::NetworkMode;
use onggi_state::ContainerRecord;
use onggi_sys::small_file;

use crate::{Engine, EngineError, Status, info::rustix_memory};

/// Usage of a container.
#[derive(Debug, Clone)]
pub struct ContainerUsage {
    /// What is stored of it.
    pub record: ContainerRecord,
    /// When this was.
    pub at: Instant,
    /// Nanoseconds of CPU time.
    pub cpu_ns: u64,
    /// Bytes of memory without those that the kernel can take back at once.
    pub memory: u64,
    /// Its limit, or what this machine has where that is less; 0 of one that does not run.
    pub memory_limit: u64,
    /// Bytes that came in over its own network.
    pub received: u64,
    /// Bytes that went out.
    pub sent: u64,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to them.
    pub written: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Engine {
    /// What a container uses now; nothing, when it does not run.
    ///
    /// # Errors
    /// No such container, or its control files cannot be read.
    pub fn usage(&self, name: &str) -> Result<ContainerUsage, EngineError> {
        let record = self.find(name)?;
        let status = self.status(&record.id)?;
        let mut usage = ContainerUsage {
            record,
            at: Instant::now(),
            cpu_ns: 0,
            memory: 0,
            memory_limit: 0,
            received: 0,
            sent: 0,
            read: 0,
            written: 0,
            pids: 0,
        };
        if let (Status::Running { pid, .. }, Some(state)) = (status, self.sandbox_state(&usage.record.id)?) {
            usage.count(&onggi_cgroup::stats(&state.cgroup_paths)?);
            // With the network of the host nothing is counted for it alone.
            if usage.record.request.network != NetworkMode::Host {
                let text = small_file::read_text(Path::new(&format!("/proc/{pid}/net/dev"))).unwrap_or_default();
                (usage.received, usage.sent) = traffic(&text);
            }
        }
        Ok(usage)
    }
}

impl ContainerUsage {
    fn count(&mut self, stats: &onggi_cgroup::Stats) {
        let machine = rustix_memory();
        self.at = Instant::now();
        self.cpu_ns = stats.cpu_ns;
        // As Docker: page cache that nobody uses is no use.
        self.memory = stats.memory.checked_sub(stats.inactive_file).unwrap_or(stats.memory);
        self.memory_limit = stats.memory_limit.map_or(machine, |limit| limit.min(machine));
        self.read = stats.io.iter().map(|device| device.read_bytes).sum();
        self.written = stats.io.iter().map(|device| device.write_bytes).sum();
        self.pids = stats.pids;
    }

    /// Percent of one CPU since an earlier look.
    pub fn cpu_percent(&self, before: &Self) -> f64 {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let used = self.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9;
        if seconds > 0.0 { used / seconds * 100.0 } else { 0.0 }
    }

    /// Percent of the limit.
    pub fn memory_percent(&self) -> f64 {
        match self.memory_limit {
            0 => 0.0,
            limit => self.memory as f64 / limit as f64 * 100.0,
        }
    }
}

/// Bytes in and out of all interfaces but the loopback (proc_pid_net(5)).
fn traffic(text: &str) -> (u64, u64) {
    let (mut received, mut sent) = (0u64, 0u64);
    for (name, counters) in text.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = counters.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        received = received.saturating_add(numbers.first().copied().unwrap_or(0));
        sent = sent.saturating_add(numbers.get(8).copied().unwrap_or(0));
    }
    (received, sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_all_interfaces_but_the_loopback() {
        let text = "Inter-|   Receive                |  Transmit\n face |bytes packets|bytes\n    lo: 99 1 0 0 0 0 0 0 99 1 0\n  eth0: 1000 5 0 0 0 0 0 0 2000 4 0 0\n  eth1: 1 1 0 0 0 0 0 0 2 1 0\n";
        assert_eq!(traffic(text), (1001, 2002));
        assert_eq!(traffic(""), (0, 0));
    }
}
