//! `events`: what a container uses, every few seconds, and kills by the OOM killer; one JSON document per line.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use onggi_cgroup::{Paths, Seen, Watch, usage::Usage};
use onggi_sandbox::StartFailureError;
use onggi_spec::oci::runtime::ContainerState;
use onggi_sys::process;
use serde::Serialize;

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag},
    inspect::to_json,
    log::print,
};

pub(super) const FLAGS: &[Flag] = &[
    Flag::value("interval", "").help("set the stats collection interval (default: 5s)"),
    Flag::switch("stats", "").help("display the container's stats then exit"),
];

/// Between two reports unless asked otherwise.
const INTERVAL: Duration = Duration::from_secs(5);

/// One line.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Usage>,
}

pub(super) fn events(global: &Global, args: &Args) -> Outcome {
    let id = args.id()?;
    let interval = args.text("interval").map_or(Ok(INTERVAL), interval)?;
    let listed = onggi_sandbox::listed(&global.root, &id)?;
    if listed.status == ContainerState::Stopped {
        return Err(StartFailureError::new(format!("container with id {id} is not running")).into());
    }
    let paths = &listed.state.cgroup_paths;
    if args.is("stats") {
        print(&stats(&id, paths)?);
        return Ok(0);
    }
    let pidfd = process::pidfd_open(listed.state.pid)
        .map_err(|e| StartFailureError::from_sys(format!("follow container {id}"), &e))?;
    follow(&id, paths, &pidfd, interval)
}

fn failure(id: &str, e: &onggi_cgroup::CgroupError) -> CliError {
    let source = std::error::Error::source(e).map(|s| format!(": {s}")).unwrap_or_default();
    let failure = StartFailureError::new(format!("read the usage of container {id}: {e}{source}"));
    e.hint().map_or(failure.clone(), |hint| failure.hint(hint)).into()
}

fn stats(id: &str, paths: &Paths) -> Result<String, CliError> {
    let usage = onggi_cgroup::usage::usage(paths).map_err(|e| failure(id, &e))?;
    to_json(&Event { kind: "stats", id, data: Some(usage) }, false)
}

/// Until the container's first process has ended.
fn follow(id: &str, paths: &Paths, pidfd: &OwnedFd, interval: Duration) -> Outcome {
    // A container without a memory controller has no OOM killer of its own.
    let mut watch = Watch::oom(paths).ok();
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let seen = match &mut watch {
            Some(watch) => watch.wait(pidfd.as_fd(), Some(left)).map_err(|e| failure(id, &e))?,
            None => wait(pidfd.as_fd(), left),
        };
        match seen {
            Seen::Event => print(&to_json(&Event { kind: "oom", id, data: None }, false)?),
            Seen::Gone | Seen::Caller => return Ok(0),
            Seen::Nothing => {}
        }
        if Instant::now() >= next {
            print(&stats(id, paths)?);
            next = Instant::now() + interval;
        }
    }
}

fn wait(pidfd: BorrowedFd<'_>, left: Duration) -> Seen {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout =
        Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: i64::from(left.subsec_nanos()) };
    match poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&timeout)) {
        Ok(n) if n > 0 => Seen::Caller,
        _ => Seen::Nothing,
    }
}

fn interval(text: &str) -> Result<Duration, CliError> {
    let wrong = || CliError::Usage(format!("invalid value {text:?} for flag -interval: parse error"));
    let duration = parse_duration(text).ok_or_else(wrong)?;
    match duration {
        None => Err(StartFailureError::new("duration interval must be greater than 0").into()),
        Some(d) if d.is_zero() => Err(StartFailureError::new("duration interval must be greater than 0").into()),
        Some(d) => Ok(d),
    }
}

/// Go's durations: `1h30m`, `1.5s`, `100ms`; a negative one is `Some(None)`.
#[expect(clippy::option_option, reason = "negative durations are valid texts and invalid intervals")]
fn parse_duration(text: &str) -> Option<Option<Duration>> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Some(Duration::ZERO));
    }
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += value * unit;
        rest = &rest[end..];
    }
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    Some((!negative).then_some(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_as_in_go() {
        let ms = |text| parse_duration(text).flatten().map(|d| d.as_millis());
        assert_eq!(["1s", "100ms", "1.5s", "1h30m", "0"].map(ms), [1000, 100, 1500, 5_400_000, 0].map(Some));
        for wrong in ["", "1", "s", "1x", "1s2", "--1s", ".s", "1..0s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        assert!(interval("0s").is_err() && interval("-1s").is_err());
    }
}
