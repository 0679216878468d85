//! `update`: new limits for a container, from flags or from a document of `linux.resources`.

use std::{
    fs::File,
    io::{self, Read},
};

use onggi_sandbox::StartFailureError;
use onggi_spec::{
    ParseError,
    oci::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources},
};
use serde_json::Value;

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag},
};

/// Longest document of resources.
const MAX_DOCUMENT: u64 = 1 << 20;

pub(super) const FLAGS: &[Flag] = &[
    Flag::value("resources", "r").help(
        "path to the file containing the resources to update (linux.resources of the runtime specification) or '-' to \
         read from the standard input; all other options are ignored then",
    ),
    Flag::number("blkio-weight", "").help("Specifies per cgroup weight, range is from 10 to 1000 (default: 0)"),
    Flag::value("cpu-period", "").help("CPU CFS period to be used for hardcapping (in usecs). 0 to use system default"),
    Flag::value("cpu-quota", "").help("CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period"),
    Flag::value("cpu-burst", "").help(
        "CPU CFS hardcap burst limit (in usecs). Allowed accumulated cpu time additionally for burst a given period",
    ),
    Flag::value("cpu-share", "").help("CPU shares (relative weight vs. other containers)"),
    Flag::value("cpu-rt-period", "")
        .help("CPU realtime period to be used for hardcapping (in usecs). 0 to use system default"),
    Flag::value("cpu-rt-runtime", "").help("CPU realtime hardcap limit (in usecs). Allowed cpu time in a given period"),
    Flag::value("cpuset-cpus", "").help("CPU(s) to use"),
    Flag::value("cpuset-mems", "").help("Memory node(s) to use"),
    Flag::value("kernel-memory", ""),
    Flag::value("kernel-memory-tcp", ""),
    Flag::value("memory", "").help("Memory limit (in bytes)"),
    Flag::value("cpu-idle", "").help("set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE"),
    Flag::value("memory-reservation", "").help("Memory reservation or soft_limit (in bytes)"),
    Flag::value("memory-swap", "").help("Total memory usage (memory + swap); set '-1' to enable unlimited swap"),
    Flag::number("pids-limit", "").help("Maximum number of pids allowed in the container"),
    Flag::value("l3-cache-schema", "").help("The string of Intel RDT/CAT L3 cache schema"),
    Flag::value("mem-bw-schema", "").help("The string of Intel RDT/MBA memory bandwidth schema"),
];

pub(super) fn update(global: &Global, args: &Args) -> Outcome {
    let id = args.id()?;
    let change = match args.text("resources").filter(|r| !r.is_empty()) {
        Some(source) => from_document(&read(source)?)?,
        None => from_flags(args)?,
    };
    let schemata = [("l3-cache-schema", "L3"), ("mem-bw-schema", "MB")].map(|(flag, kind)| {
        let lines = args.text(flag).filter(|s| !s.is_empty())?;
        Some((kind, lines.to_owned()))
    });
    let mut notes = Vec::new();
    let kernel = change.memory.as_ref().is_some_and(|m| m.kernel.is_some() || m.kernel_tcp.is_some());
    if kernel {
        notes.push("Kernel memory settings are ignored and will be removed".to_owned());
    }
    notes.extend(onggi_sandbox::update(&global.root, &id, &without_kernel(change), &schemata)?);
    global.log.notes(&notes);
    Ok(0)
}

/// The kernel has withdrawn these limits; runc accepts and ignores them.
fn without_kernel(mut change: LinuxResources) -> LinuxResources {
    if let Some(memory) = &mut change.memory {
        (memory.kernel, memory.kernel_tcp) = (None, None);
    }
    change
}

fn read(source: &str) -> Result<Vec<u8>, CliError> {
    let fail = |source_error| CliError::File { what: "read", path: source.into(), source: source_error };
    let mut bytes = Vec::new();
    if source == "-" {
        io::stdin().lock().take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(fail)?;
    } else {
        File::open(source).and_then(|f| f.take(MAX_DOCUMENT).read_to_end(&mut bytes)).map_err(fail)?;
    }
    Ok(bytes)
}

/// Names as the specification has them, whatever their case: callers were written for Go's decoder.
fn from_document(bytes: &[u8]) -> Result<LinuxResources, CliError> {
    let wrong = |e: serde_json::Error| CliError::from(ParseError::new("resources", "update", e.to_string()));
    let mut document: Value = serde_json::from_slice(bytes).map_err(wrong)?;
    fold_case(&mut document);
    serde_json::from_value(document).map_err(wrong)
}

/// Members of `linux.resources` and below that are not all lower case.
const MIXED_CASE: [&str; 24] = [
    "blockIO",
    "hugepageLimits",
    "kernelTCP",
    "disableOOMKiller",
    "useHierarchy",
    "checkBeforeUpdate",
    "realtimeRuntime",
    "realtimePeriod",
    "leafWeight",
    "weightDevice",
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
    "pageSize",
    "classID",
    "hcaHandles",
    "hcaObjects",
    "memory",
    "cpu",
    "pids",
    "network",
    "rdma",
    "unified",
];

fn fold_case(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(fold_case),
        Value::Object(members) => {
            for (name, mut member) in std::mem::take(members) {
                let known = MIXED_CASE.iter().find(|k| k.eq_ignore_ascii_case(&name));
                let name = known.map_or_else(|| name.to_ascii_lowercase(), |k| (*k).to_owned());
                match name.as_str() {
                    // What is in these is data: files and devices.
                    "unified" => {}
                    "rdma" => {
                        if let Value::Object(devices) = &mut member {
                            devices.iter_mut().for_each(|(_, limits)| fold_case(limits));
                        }
                    }
                    _ => fold_case(&mut member),
                }
                members.insert(name, member);
            }
        }
        _ => {}
    }
}

fn from_flags(args: &Args) -> Result<LinuxResources, CliError> {
    let given = |flag: &str| args.text(flag).filter(|v| !v.is_empty());
    let unsigned = |flag: &str| given(flag).map(|v| number::<u64>(flag, v)).transpose();
    let signed = |flag: &str| given(flag).map(|v| number::<i64>(flag, v)).transpose();
    let size = |flag: &str| given(flag).map(|v| bytes(flag, v)).transpose();
    let list = |flag: &str| given(flag).map(str::to_owned);
    let weight = given("blkio-weight").map(|v| number::<u16>("blkio-weight", v)).transpose()?;
    Ok(LinuxResources {
        memory: Some(LinuxMemory {
            limit: size("memory")?,
            reservation: size("memory-reservation")?,
            swap: size("memory-swap")?,
            kernel: size("kernel-memory")?,
            kernel_tcp: size("kernel-memory-tcp")?,
            ..LinuxMemory::default()
        }),
        cpu: Some(LinuxCpu {
            shares: unsigned("cpu-share")?,
            quota: signed("cpu-quota")?,
            burst: unsigned("cpu-burst")?,
            period: unsigned("cpu-period")?,
            realtime_runtime: signed("cpu-rt-runtime")?,
            realtime_period: unsigned("cpu-rt-period")?,
            cpus: list("cpuset-cpus"),
            mems: list("cpuset-mems"),
            idle: signed("cpu-idle")?,
        }),
        // No limit, as to runc and crun; -1 says the same.
        pids: Some(LinuxPids { limit: signed("pids-limit")?.map(|n| if n == 0 { -1 } else { n }) }),
        block_io: weight.map(|w| LinuxBlockIo { weight: Some(w), ..LinuxBlockIo::default() }),
        ..LinuxResources::default()
    })
}

fn invalid(flag: &str, why: impl std::fmt::Display) -> CliError {
    StartFailureError::new(format!("invalid value for {flag}: {why}")).into()
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(flag: &str, text: &str) -> Result<T, CliError> {
    text.parse().map_err(|e| invalid(flag, format!("parsing {text:?}: {e}")))
}

/// Bytes, `-1` for unlimited.
fn bytes(flag: &str, text: &str) -> Result<i64, CliError> {
    match text {
        "-1" => Ok(-1),
        size => parse_size(size).ok_or_else(|| invalid(flag, format!("invalid size: '{size}'"))),
    }
}

/// `1.5g`, `64M`, `10 KiB`: powers of 1024 (units.RAMInBytes of docker/go-units).
fn parse_size(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = lower[digits.len()..].strip_suffix('b').unwrap_or(&lower[digits.len()..]);
    let unit = unit.strip_suffix('i').filter(|u| !u.is_empty()).unwrap_or(unit);
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !plain {
        return None;
    }
    if let Ok(whole) = digits.parse::<i64>() {
        return whole.checked_mul(1 << shift);
    }
    let size = digits.parse::<f64>().ok()? * (1u64 << shift) as f64;
    // 2^63: beyond it an i64 has no such number.
    (size < 9_223_372_036_854_775_808.0).then_some(size as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_docker() {
        for (text, size) in [
            ("0", 0),
            ("64", 64),
            ("50M", 50 << 20),
            ("50mb", 50 << 20),
            ("1.5g", 3 << 29),
            ("10 KiB", 10 << 10),
            ("32b", 32),
            ("1Ti", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Some(size), "{text}");
        }
        for wrong in ["", "x", "10x", "-2", "1.", ".5", "1  k", "ki", "9999999999999999999", "9000000P", "1e3", "64Mbb"]
        {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn documents_may_be_written_in_any_case() {
        let text = br#"{"CPU":{"Cpus":"0","RealtimePeriod":5},"Memory":{"Limit":7},"unified":{"Memory.High":"1"},
            "hugepagelimits":[{"PageSize":"2MB","limit":1}],"rdma":{"MLX":{"hcahandles":1}},"blockio":{"Weight":10}}"#;
        let r = from_document(text).unwrap();
        let cpu = r.cpu.unwrap();
        assert_eq!((cpu.cpus.as_deref(), cpu.realtime_period), (Some("0"), Some(5)));
        assert_eq!(r.memory.unwrap().limit, Some(7));
        assert_eq!(r.unified["Memory.High"], "1");
        assert_eq!(r.hugepage_limits[0].page_size, "2MB");
        assert_eq!(r.rdma["MLX"].hca_handles, Some(1));
        assert_eq!(r.block_io.unwrap().weight, Some(10));
        assert!(from_document(b"[").is_err() && from_document(br#"{"cpu":{"shares":"x"}}"#).is_err());
    }
}
