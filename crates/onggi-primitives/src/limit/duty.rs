//! A share of CPU time without control groups, as cpulimit(1) keeps it: processes that have used more than their share
//! are stopped (SIGSTOP) until the share has caught up, then they go on (SIGCONT).
//!
//! The account is one of time: it grows by the share as time passes, what /proc says was used is taken from it, and it
//! never holds more than a short burst, so that a process that slept does not run unlimited afterwards. Whoever drops a
//! [`Duty`] lets the processes run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use onggi_sys::process::kill;

/// USER_HZ is 100 on every architecture that matters (proc_pid_stat(5)).
const TICK: Duration = Duration::from_millis(10);
/// How much unused share is kept for later.
const BURST: Duration = Duration::from_millis(100);
/// Shortest and longest time between two looks: the clock ticks no faster, and a job must not run away.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;

/// The limit of some processes and of all that come from them.
#[derive(Debug)]
pub struct Duty {
    /// Share in CPUs.
    share: f64,
    roots: Vec<i32>,
    account: Account,
    stopped: BTreeSet<i32>,
    last: Instant,
}

/// Time that may be used, and what was used when it was looked at last; seconds.
#[derive(Debug, Default)]
struct Account {
    credit: f64,
    used: f64,
}

impl Account {
    /// Books the time that has passed. True when the processes may run.
    fn book(&mut self, share: f64, passed: Duration, used: f64) -> bool {
        let spent = (used - self.used).max(0.0);
        self.used = used;
        self.credit += share * passed.as_secs_f64() - spent;
        self.credit = self.credit.min(share * BURST.as_secs_f64());
        self.credit >= 0.0
    }

    /// When to look again: when the debt is paid, or when the credit may be used up.
    fn pause(&self, share: f64, cpus: f64) -> Duration {
        let seconds = if self.credit < 0.0 { -self.credit / share } else { self.credit / cpus };
        Duration::from_secs_f64(seconds.clamp(PAUSES.0.as_secs_f64(), PAUSES.1.as_secs_f64()))
    }
}

impl Duty {
    /// Begins to count; `nano` is the share in 10^-9 CPU.
    pub fn new(roots: &[i32], nano: u64) -> Self {
        let share = (nano as f64 / 1e9).max(0.001);
        let family = family(roots);
        let account = Account { credit: share * TICK.as_secs_f64(), used: used(&family) };
        Self { share, roots: roots.to_vec(), account, stopped: BTreeSet::new(), last: Instant::now() }
    }

    /// Looks, stops or continues, and says when to look again; `None` when no process is left.
    pub fn step(&mut self, now: Instant) -> Option<Duration> {
        let family = family(&self.roots);
        if family.is_empty() {
            return None;
        }
        let passed = now.saturating_duration_since(self.last);
        self.last = now;
        // A process that has ended takes its time along; its parent has it when it has waited.
        let used = used(&family).max(self.account.used);
        match self.account.book(self.share, passed, used) {
            true => self.release(),
            false => self.stop(family.keys().copied()),
        }
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        Some(self.account.pause(self.share, cpus))
    }

    /// Those that are new are stopped too.
    fn stop(&mut self, pids: impl Iterator<Item = i32>) {
        for pid in pids {
            if self.stopped.insert(pid) {
                // It may have ended, or belong to somebody else by now.
                let _ = kill(pid, SIGSTOP);
            }
        }
    }

    /// Lets everything run.
    pub fn release(&mut self) {
        for pid in std::mem::take(&mut self.stopped) {
            let _ = kill(pid, SIGCONT);
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.release();
    }
}

/// CPU time of a process and of the children that it has waited for, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    parent: i32,
    ticks: u64,
}

/// The processes and all that come from them.
fn family(roots: &[i32]) -> BTreeMap<i32, Times> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        all.extend(parse(&stat).map(|times| (pid, times)));
    }
    let mut found: BTreeMap<i32, Times> = BTreeMap::new();
    let mut todo = roots.to_vec();
    while let Some(pid) = todo.pop() {
        let Some(times) = all.get(&pid).filter(|_| !found.contains_key(&pid)) else { continue };
        found.insert(pid, *times);
        todo.extend(all.iter().filter(|(_, t)| t.parent == pid).map(|(pid, _)| *pid));
    }
    found
}

/// proc_pid_stat(5); a zombie uses nothing any more and cannot be stopped.
fn parse(stat: &str) -> Option<Times> {
    let rest: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    if matches!(rest.first(), Some(&"Z" | &"X") | None) {
        return None;
    }
    let number = |n: usize| rest.get(n)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Times { parent: rest.get(1)?.parse().ok()?, ticks })
}

fn used(family: &BTreeMap<i32, Times>) -> f64 {
    family.values().map(|t| t.ticks).sum::<u64>() as f64 * TICK.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_keeps_the_share_over_time_whatever_the_clock_ticks() {
        let (mut account, mut used, mut running, mut now) = (Account::default(), 0.0_f64, true, 0.0_f64);
        while now < 20.0 {
            let pause = account.pause(0.3, 1.0);
            now += pause.as_secs_f64();
            used += if running { pause.as_secs_f64() } else { 0.0 };
            let ticked = (used * 100.0).floor() / 100.0;
            running = account.book(0.3, pause, ticked);
        }
        let share = used / now;
        assert!((0.29..0.32).contains(&share), "{share}");
    }

    #[test]
    fn who_has_slept_does_not_run_unlimited_afterwards() {
        let mut account = Account::default();
        assert!(account.book(0.5, Duration::from_secs(3600), 0.0));
        assert!(!account.book(0.5, Duration::from_millis(100), 0.2));
    }

    #[test]
    fn stat_lines_are_read_behind_the_name_and_zombies_count_for_nothing() {
        let line = |state: &str| format!("7 (a) b) {state} 3 7 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 99");
        assert_eq!(parse(&line("S")), Some(Times { parent: 3, ticks: 100 }));
        assert_eq!(parse(&line("Z")), None);
        assert_eq!(parse("rubbish"), None);
        assert!(family(&[std::process::id().cast_signed()]).len() == 1);
    }
}
