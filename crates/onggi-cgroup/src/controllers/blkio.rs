//! `linux.resources.blockIO`: `blkio` on version 1, `io` on version 2.

use onggi_spec::oci::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};

use super::{Setting, Settings, Version, bad};

pub(super) fn settings(resources: &LinuxResources, version: Version) -> Settings {
    let Some(io) = &resources.block_io else { return Ok(Vec::new()) };
    check(io)?;
    match version {
        Version::V1 => Ok(v1(io)),
        Version::V2 => Ok(v2(io)),
    }
}

fn check(io: &LinuxBlockIo) -> Result<(), crate::CgroupError> {
    let devices = io.weight_device.iter().flat_map(|d| [d.weight, d.leaf_weight]);
    let weights = [io.weight, io.leaf_weight].into_iter().chain(devices).flatten();
    match weights.filter(|w| *w != 0).find(|w| !(10..=1000).contains(w)) {
        Some(weight) => Err(bad("blockIO.weight", weight, "use 10 to 1000")),
        None => Ok(()),
    }
}

fn v1(io: &LinuxBlockIo) -> Vec<Setting> {
    let set = |file: &str, value: String, what: String| Setting::new("blkio", file, value, what);
    let mut out = Vec::new();
    if let Some(w) = io.weight.filter(|w| *w != 0) {
        // Which scheduler the disks have decides whether there is such a file: without it runc goes on too.
        let s = set("blkio.bfq.weight", w.to_string(), format!("I/O weight {w}"));
        out.push(s.or("blkio.weight", w).wished());
    }
    if let Some(w) = io.leaf_weight.filter(|w| *w != 0) {
        out.push(set("blkio.leaf_weight", w.to_string(), format!("I/O leaf weight {w}")).wished());
    }
    for d in &io.weight_device {
        let device = format!("{}:{}", d.major, d.minor);
        if let Some(w) = d.weight.filter(|w| *w != 0) {
            let value = format!("{device} {w}");
            let s = set("blkio.bfq.weight_device", value.clone(), format!("I/O weight {w} on {device}"));
            out.push(s.or("blkio.weight_device", value).wished());
        }
        if let Some(w) = d.leaf_weight.filter(|w| *w != 0) {
            let what = format!("I/O leaf weight {w} on {device}");
            out.push(set("blkio.leaf_weight_device", format!("{device} {w}"), what).wished());
        }
    }
    for (devices, file, _, unit) in throttles(io) {
        let file = format!("blkio.throttle.{file}_device");
        out.extend(devices.iter().map(|d| {
            let value = format!("{}:{} {}", d.major, d.minor, d.rate);
            set(&file, value, throttle_words(d, unit))
        }));
    }
    out
}

fn v2(io: &LinuxBlockIo) -> Vec<Setting> {
    let set = |file: &str, value: String, what: String| Setting::new("io", file, value, what);
    let mut out = Vec::new();
    let asked = |leaf: Option<u16>| leaf.is_some_and(|w| w != 0);
    if asked(io.leaf_weight) || io.weight_device.iter().any(|d| asked(d.leaf_weight)) {
        out.push(Setting::ignored(Version::V2, "an I/O leaf weight"));
    }
    if let Some(w) = io.weight.filter(|w| *w != 0) {
        let s = set("io.bfq.weight", w.to_string(), format!("I/O weight {w}"));
        out.push(s.or("io.weight", weight(w)));
    }
    for d in &io.weight_device {
        if let Some(w) = d.weight.filter(|w| *w != 0) {
            let device = format!("{}:{}", d.major, d.minor);
            let s = set("io.bfq.weight", format!("{device} {w}"), format!("I/O weight {w} on {device}"));
            out.push(s.or("io.weight", format!("{device} {}", weight(w))));
        }
    }
    for (devices, _, key, unit) in throttles(io) {
        out.extend(devices.iter().map(|d| {
            let value = format!("{}:{} {key}={}", d.major, d.minor, rate(d.rate));
            set("io.max", value, throttle_words(d, unit))
        }));
    }
    out
}

/// The four throttles: devices, version 1 file, version 2 key, unit.
fn throttles(io: &LinuxBlockIo) -> [(&[LinuxThrottleDevice], &'static str, &'static str, &'static str); 4] {
    [
        (&io.throttle_read_bps_device, "read_bps", "rbps", "bytes/s read"),
        (&io.throttle_write_bps_device, "write_bps", "wbps", "bytes/s written"),
        (&io.throttle_read_iops_device, "read_iops", "riops", "reads/s"),
        (&io.throttle_write_iops_device, "write_iops", "wiops", "writes/s"),
    ]
}

fn throttle_words(d: &LinuxThrottleDevice, unit: &str) -> String {
    format!("I/O limit of {} {unit} on {}:{}", d.rate, d.major, d.minor)
}

/// 0 lifts the limit.
fn rate(rate: u64) -> String {
    if rate == 0 { "max".into() } else { rate.to_string() }
}

/// blkio.weight (10 … 1000) as io.weight (1 … 10000), linear as runc and crun do.
fn weight(blkio: u16) -> u32 {
    1 + (u32::from(blkio) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_ends_of_both_weight_scales_meet() {
        assert_eq!([10, 1000].map(super::weight), [1, 10_000]);
    }
}
