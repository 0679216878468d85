//! Pressure stall information of a group, or of the machine (Documentation/accounting/psi.rst).

use std::{fs, path::Path};

use onggi_cgroup::Paths;
use serde::Serialize;

/// Shares of time in which tasks waited, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Stall {
    /// Over ten seconds.
    pub avg10: f64,
    /// Over a minute.
    pub avg60: f64,
    /// Over five minutes.
    pub avg300: f64,
    /// Microseconds in all.
    pub total: u64,
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Pressure {
    /// `cpu`, `memory`, `io`.
    pub resource: &'static str,
    /// Some task waited.
    pub some: Stall,
    /// All tasks waited.
    pub full: Stall,
}

/// The pressure in a group; empty where the kernel does not measure it, or only version 1 knows the group.
pub fn pressure(paths: &Paths) -> Vec<Pressure> {
    let Some(dir) = paths.get("") else { return Vec::new() };
    of(|resource| dir.join(format!("{resource}.pressure")))
}

/// The pressure on the machine.
pub fn machine_pressure() -> Vec<Pressure> {
    of(|resource| Path::new("/proc/pressure").join(resource))
}

fn of(file: impl Fn(&str) -> std::path::PathBuf) -> Vec<Pressure> {
    let one = |resource: &'static str| parse(resource, &fs::read_to_string(file(resource)).ok()?);
    ["cpu", "memory", "io"].into_iter().filter_map(one).collect()
}

fn parse(resource: &'static str, text: &str) -> Option<Pressure> {
    let line = |kind: &str| {
        let rest = text.lines().find_map(|l| l.strip_prefix(kind)?.strip_prefix(' '))?;
        let value = |key: &str| rest.split(' ').find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        let share = |key: &str| value(key).and_then(|v| v.parse().ok()).filter(|v: &f64| v.is_finite()).unwrap_or(0.0);
        let total = value("total").and_then(|v| v.parse().ok()).unwrap_or(0);
        Some(Stall { avg10: share("avg10"), avg60: share("avg60"), avg300: share("avg300"), total })
    };
    Some(Pressure { resource, some: line("some")?, full: line("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=42\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=7\n";
        let found = parse("cpu", text).expect("pressure");
        assert_eq!((found.some.avg10, found.some.total, found.full.total), (1.5, 42, 7));
        assert_eq!(parse("cpu", "rubbish"), None);
    }
}
