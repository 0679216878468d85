//! `linux.resources.cpu` without its CPU lists.

use onggi_spec::oci::runtime::{LinuxCpu, LinuxResources};

use super::{Setting, Settings, Version, bad};

/// The kernel's period when none is given, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn settings(resources: &LinuxResources, version: Version) -> Settings {
    let Some(cpu) = &resources.cpu else { return Ok(Vec::new()) };
    check_shares(cpu.shares)?;
    if cpu.idle.is_some_and(|i| i != 0 && i != 1) {
        return Err(bad("cpu.idle", cpu.idle.unwrap_or_default(), "use 0 or 1"));
    }
    match version {
        Version::V1 => Ok(v1(cpu)),
        Version::V2 => Ok(v2(cpu)),
    }
}

/// The kernel would silently take the nearest number (kernel/sched/sched.h, MIN_SHARES and MAX_SHARES).
fn check_shares(shares: Option<u64>) -> Result<(), crate::CgroupError> {
    match shares {
        Some(1) => Err(bad("cpu.shares", 1, "the minimum allowed cpu-shares is 2")),
        Some(n) if n > 262_144 => Err(bad("cpu.shares", n, "the maximum allowed cpu-shares is 262144")),
        _ => Ok(()),
    }
}

fn v1(cpu: &LinuxCpu) -> Vec<Setting> {
    let mut out = Vec::new();
    if let Some(shares) = cpu.shares.filter(|v| *v != 0) {
        // An idle group takes none until it is not idle any more.
        out.push(Setting::new("cpu", "cpu.shares", shares, format!("CPU shares {shares}")).again());
    }
    // Period, quota and burst are checked against each other and against the parent's, so which order the
    // kernel takes depends on what was there before.
    if let Some(period) = period(cpu) {
        out.push(Setting::new("cpu", "cpu.cfs_period_us", period, format!("CPU period of {period} µs")).again());
    }
    if let Some(quota) = cpu.quota.filter(|v| *v != 0) {
        out.push(Setting::new("cpu", "cpu.cfs_quota_us", quota.max(-1), limit_words(cpu)).again());
    }
    if let Some(burst) = cpu.burst {
        // Since 5.14; what is left out costs nothing but smoothness.
        out.push(Setting::new("cpu", "cpu.cfs_burst_us", burst, format!("CPU burst of {burst} µs")).wished());
    }
    if let Some(period) = cpu.realtime_period.filter(|v| *v != 0) {
        out.push(Setting::new("cpu", "cpu.rt_period_us", period, "real-time period").again());
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|v| *v != 0) {
        out.push(Setting::new("cpu", "cpu.rt_runtime_us", runtime, "real-time share"));
    }
    if let Some(idle) = cpu.idle {
        out.push(Setting::new("cpu", "cpu.idle", idle, "idle scheduling"));
    }
    out
}

fn v2(cpu: &LinuxCpu) -> Vec<Setting> {
    let mut out = Vec::new();
    if cpu.realtime_period.unwrap_or(0) != 0 || cpu.realtime_runtime.unwrap_or(0) != 0 {
        out.push(Setting::ignored(Version::V2, "a real-time CPU share"));
    }
    if let Some(shares) = cpu.shares.filter(|v| *v != 0) {
        let weight = shares_to_weight(shares);
        out.push(Setting::new("cpu", "cpu.weight", weight, format!("CPU shares {shares} (weight {weight})")).again());
    }
    if cpu.quota.is_some_and(|q| q != 0) || period(cpu).is_some() {
        let quota = match cpu.quota {
            Some(quota) if quota > 0 => quota.to_string(),
            _ => "max".into(),
        };
        let value = format!("{quota} {}", period(cpu).unwrap_or(DEFAULT_PERIOD));
        out.push(Setting::new("cpu", "cpu.max", value, limit_words(cpu)).again());
    }
    if let Some(burst) = cpu.burst {
        out.push(Setting::new("cpu", "cpu.max.burst", burst, format!("CPU burst of {burst} µs")).wished());
    }
    // After the weight: an idle group refuses one.
    if let Some(idle) = cpu.idle {
        out.push(Setting::new("cpu", "cpu.idle", idle, "idle scheduling"));
    }
    out
}

fn period(cpu: &LinuxCpu) -> Option<u64> {
    cpu.period.filter(|v| *v != 0)
}

/// "CPU limit of 1.5 CPUs".
fn limit_words(cpu: &LinuxCpu) -> String {
    match cpu.quota {
        Some(quota) if quota > 0 => {
            format!("CPU limit of {} CPUs", quota as f64 / period(cpu).unwrap_or(DEFAULT_PERIOD) as f64)
        }
        _ => "CPU limit".into(),
    }
}

/// cpu.shares (2 … 262144, default 1024) as cpu.weight (1 … 10000, default 100): the curve through
/// these three points that runc 1.4 and crun 1.23 use; the older straight line made the default 39.
pub fn shares_to_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            // Rounding up; the small term keeps exact powers from being pushed over by the last bit.
            (10f64.powf(exponent) - 1e-9).ceil() as u64
        }
    }
}

/// cpu.weight as cpu.shares: the largest shares that are no more than that weight.
pub fn weight_to_shares(weight: u64) -> u64 {
    let (mut low, mut high) = (2u64, 262_144u64);
    while low < high {
        let middle = (low + high).div_ceil(2);
        match shares_to_weight(middle) <= weight {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::{shares_to_weight as weight, weight_to_shares};

    #[test]
    fn the_way_back_keeps_the_ends_and_gives_every_weight_its_own_shares() {
        assert_eq!([1, 10_000].map(weight_to_shares), [2, 262_144]);
        assert_eq!(weight_to_shares(100), 1024);
        assert!((1..=10_000).all(|w| weight(weight_to_shares(w)) <= w));
    }

    #[test]
    fn the_ends_and_the_default_of_both_scales_meet() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
        assert_eq!([0, 1, u64::MAX].map(weight), [1, 1, 10_000]);
    }

    #[test]
    fn more_shares_never_mean_less_weight() {
        let all: Vec<u64> = (2..300_000).step_by(7).map(weight).collect();
        assert!(all.is_sorted());
        assert!(all.iter().all(|w| (1..=10_000).contains(w)));
    }
}
