//! What a group's limits are, in the words of the vocabulary: the way back of the translation.

use super::{GroupFacts, Version, keys::UNLIMITED};

/// One limit as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// A word of the vocabulary, or the name of a control file.
    pub key: String,
    /// Its value, as [`super::plan_set`] takes it.
    pub value: String,
    /// Where it stands: files and their text; empty for a file read by name.
    pub from: String,
}

/// The limits of a group; those whose controller it lacks are left out.
pub fn readings(facts: &GroupFacts) -> Vec<Reading> {
    let words: &[(&str, Get)] = match facts.version {
        Version::V1 => &V1,
        Version::V2 => &V2,
    };
    let mut found: Vec<Reading> = words.iter().filter_map(|(key, get)| get(key, facts)).collect();
    found.extend(throttles(facts));
    found
}

/// One word or control file, of either version.
pub fn reading(key: &str, facts: &GroupFacts) -> Vec<Reading> {
    if let Some(file) = facts.files.get(key) {
        return vec![Reading { key: key.to_owned(), value: file.text.clone(), from: String::new() }];
    }
    let word = super::keys::known(key).unwrap_or(key);
    let by_word: Vec<Reading> = readings(facts).into_iter().filter(|r| r.key == word).collect();
    if !by_word.is_empty() {
        return by_word;
    }
    foreign(key, facts).into_iter().collect()
}

/// A control file of the other version, as it would read.
fn foreign(file: &str, facts: &GroupFacts) -> Option<Reading> {
    let text = |name: &str| facts.text(name).map(str::to_owned);
    let (value, from) = match (facts.version, file) {
        (Version::V1, "cpu.max") => {
            let (quota, period) = (text("cpu.cfs_quota_us")?, text("cpu.cfs_period_us")?);
            let quota = if quota == "-1" { "max".to_owned() } else { quota };
            (format!("{quota} {period}"), "cpu.cfs_quota_us, cpu.cfs_period_us")
        }
        (Version::V1, "memory.max") => (max_v1(facts, "memory.limit_in_bytes")?, "memory.limit_in_bytes"),
        (Version::V1, "memory.current") => (text("memory.usage_in_bytes")?, "memory.usage_in_bytes"),
        (Version::V1, "memory.peak") => (text("memory.max_usage_in_bytes")?, "memory.max_usage_in_bytes"),
        (Version::V1, "cpu.weight") => {
            let shares = facts.number("cpu.shares")?;
            (onggi_cgroup::shares_to_weight(shares).to_string(), "cpu.shares")
        }
        (Version::V2, "cpu.cfs_quota_us") => {
            let quota = text("cpu.max")?.split(' ').next()?.replace("max", "-1");
            (quota, "cpu.max")
        }
        (Version::V2, "cpu.cfs_period_us") => (text("cpu.max")?.split(' ').nth(1)?.to_owned(), "cpu.max"),
        (Version::V2, "cpu.shares") => {
            let weight = facts.number("cpu.weight")?;
            (onggi_cgroup::weight_to_shares(weight).to_string(), "cpu.weight")
        }
        (Version::V2, "memory.limit_in_bytes") => {
            (text("memory.max")?.replace("max", &UNLIMITED.to_string()), "memory.max")
        }
        (Version::V2, "memory.usage_in_bytes") => (text("memory.current")?, "memory.current"),
        (Version::V2, "cpuacct.usage") => {
            let stat = text("cpu.stat")?;
            let micros = stat.lines().find_map(|l| l.strip_prefix("usage_usec "))?.parse::<u64>().ok()?;
            (micros.saturating_mul(1000).to_string(), "cpu.stat")
        }
        _ => return None,
    };
    Some(Reading { key: file.to_owned(), value, from: from.to_owned() })
}

fn max_v1(facts: &GroupFacts, file: &str) -> Option<String> {
    let n = facts.number(file)?;
    Some(if n >= UNLIMITED { "max".into() } else { n.to_string() })
}

type Get = fn(&str, &GroupFacts) -> Option<Reading>;

const V1: [(&str, Get); 11] = [
    ("cpus", |key, f| {
        let quota: i64 = f.text("cpu.cfs_quota_us")?.parse().ok()?;
        let period = f.number("cpu.cfs_period_us")?;
        let value = u64::try_from(quota).map_or_else(|_| "max".into(), |quota| cpus(quota, period));
        Some(told(key, value, &format!("cpu.cfs_quota_us {quota}, cpu.cfs_period_us {period}")))
    }),
    ("cpu-weight", |key, f| {
        let shares = f.number("cpu.shares")?;
        Some(told(key, onggi_cgroup::shares_to_weight(shares).to_string(), &format!("cpu.shares {shares}")))
    }),
    ("cpu-idle", |key, f| plain(key, "cpu.idle", f)),
    ("cpuset", |key, f| plain(key, "cpuset.cpus", f)),
    ("cpuset-mems", |key, f| plain(key, "cpuset.mems", f)),
    ("memory", |key, f| bytes(key, "memory.limit_in_bytes", f)),
    ("memory-swap", |key, f| bytes(key, "memory.memsw.limit_in_bytes", f)),
    ("memory-low", |key, f| bytes(key, "memory.soft_limit_in_bytes", f)),
    ("swappiness", |key, f| plain(key, "memory.swappiness", f)),
    ("pids", |key, f| plain(key, "pids.max", f)),
    ("io-weight", |key, f| plain(key, "blkio.bfq.weight", f).or_else(|| plain(key, "blkio.weight", f))),
];

const V2: [(&str, Get); 12] = [
    ("cpus", |key, f| {
        let text = f.text("cpu.max")?;
        let (quota, period) = text.split_once(' ')?;
        let value = match quota.parse() {
            Ok(quota) => cpus(quota, period.parse().ok()?),
            Err(_) => "max".into(),
        };
        Some(told(key, value, &format!("cpu.max {text}")))
    }),
    ("cpu-weight", |key, f| plain(key, "cpu.weight", f)),
    ("cpu-idle", |key, f| plain(key, "cpu.idle", f)),
    ("cpuset", |key, f| plain(key, "cpuset.cpus", f)),
    ("cpuset-mems", |key, f| plain(key, "cpuset.mems", f)),
    ("memory", |key, f| bytes(key, "memory.max", f)),
    ("memory-high", |key, f| bytes(key, "memory.high", f)),
    ("memory-low", |key, f| bytes(key, "memory.low", f)),
    ("memory-min", |key, f| bytes(key, "memory.min", f)),
    ("swap", |key, f| bytes(key, "memory.swap.max", f)),
    ("pids", |key, f| plain(key, "pids.max", f)),
    ("io-weight", |key, f| plain(key, "io.weight", f).or_else(|| plain(key, "io.bfq.weight", f))),
];

fn told(key: &str, value: String, from: &str) -> Reading {
    Reading { key: key.to_owned(), value, from: from.to_owned() }
}

fn plain(key: &str, file: &str, facts: &GroupFacts) -> Option<Reading> {
    let text = facts.text(file)?;
    Some(told(key, text.strip_prefix("default ").unwrap_or(text).to_owned(), &format!("{file} {text}")))
}

/// `100MiB` where that is exact, else the number itself: what is shown can be set again.
fn bytes(key: &str, file: &str, facts: &GroupFacts) -> Option<Reading> {
    let text = facts.text(file)?;
    let value = match text.parse::<u64>() {
        Ok(n) if n < UNLIMITED => exact(n),
        _ => "max".into(),
    };
    Some(told(key, value, &format!("{file} {text}")))
}

fn exact(n: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "G"), (20, "M"), (10, "K")];
    let unit = UNITS.iter().find(|(shift, _)| n != 0 && n.is_multiple_of(1 << shift));
    unit.map_or_else(|| n.to_string(), |(shift, unit)| format!("{}{unit}", n >> shift))
}

/// `0.5`, `2`: at most three digits behind the point, as the kernel's quota is in microseconds.
fn cpus(quota: u64, period: u64) -> String {
    if period == 0 {
        return "max".into();
    }
    let text = format!("{:.5}", quota as f64 / period as f64);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn throttles(facts: &GroupFacts) -> Vec<Reading> {
    let mut found = Vec::new();
    for which in ["read-bps", "write-bps", "read-iops", "write-iops"] {
        let key = format!("io-{which}");
        let file = format!("blkio.throttle.{}_device", which.replace('-', "_"));
        for line in facts.text(&file).unwrap_or_default().lines() {
            if let Some((device, rate)) = line.split_once(' ') {
                found.push(told(&key, format!("{device}:{rate}"), &format!("{file} {line}")));
            }
        }
        let short = match which {
            "read-bps" => "rbps=",
            "write-bps" => "wbps=",
            "read-iops" => "riops=",
            _ => "wiops=",
        };
        for line in facts.text("io.max").unwrap_or_default().lines() {
            let device = line.split(' ').next().unwrap_or_default();
            let rate = line.split(' ').find_map(|w| w.strip_prefix(short)).filter(|rate| *rate != "max");
            found.extend(rate.map(|rate| told(&key, format!("{device}:{rate}"), &format!("io.max {line}"))));
        }
    }
    found
}
