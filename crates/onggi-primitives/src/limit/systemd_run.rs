//! The plan of a unit as the command line of systemd-run(1) that asks for the same.

use onggi_cgroup::systemd::{Manager, Property, UnitPlan, Value};

use super::{LimitRequest, Rlimit, Target, show};

/// Options and command.
pub(super) fn systemd_run(request: &LimitRequest, unit: &UnitPlan, scope: bool) -> Vec<String> {
    let mut out = Vec::new();
    if unit.manager == Manager::User {
        out.push("--user".to_owned());
    }
    if scope {
        out.push("--scope".to_owned());
    }
    out.push(format!("--unit={}", unit.name));
    out.extend(unit.properties.iter().flat_map(options));
    // A scope is made around a process that is told the rest by itself.
    if scope {
        out.extend(request.nice.map(|n| format!("--nice={n}")));
        if !request.rlimits.is_empty() {
            out.push("prlimit".to_owned());
            out.extend(request.rlimits.iter().map(show::option));
        }
    }
    if !scope {
        let limit = |l: &Rlimit| {
            let name = l.name.trim_start_matches("RLIMIT_");
            format!("-pLimit{name}={}:{}", number(l.soft), number(l.hard))
        };
        out.extend(request.rlimits.iter().map(limit));
    }
    if let Target::Command(command) = &request.target {
        out.extend(command.iter().cloned());
    }
    out
}

/// The option that sets a property; none for those that the command line has other words for.
fn options(property: &Property) -> Vec<String> {
    let name = property.name.as_str();
    let one = |text: String| vec![format!("-p{text}")];
    match (name, &property.value) {
        ("Description" | "ExecStart", _) => Vec::new(),
        // Two properties; one option has both.
        _ if name.starts_with("Limit") => Vec::new(),
        ("Slice", Value::Str(slice)) => vec![format!("--slice={slice}")],
        ("CPUQuotaPerSecUSec", Value::U64(u64::MAX)) => one("CPUQuota=".to_owned()),
        ("CPUQuotaPerSecUSec", Value::U64(n)) => one(format!("CPUQuota={}%", n / 10_000)),
        ("CPUQuotaPeriodUSec", Value::U64(n)) => one(format!("CPUQuotaPeriodSec={n}us")),
        ("CPUWeight", Value::U64(0)) => one("CPUWeight=idle".to_owned()),
        (_, Value::U64(n)) => one(format!("{name}={}", number(*n))),
        (_, Value::Array(kind, bytes)) if kind == "y" => one(format!("{name}={}", bits(bytes))),
        (_, Value::Array(_, entries)) => entries.iter().filter_map(|entry| device(name, entry)).collect(),
        (_, value) => one(format!("{name}={value}")),
    }
}

/// `/dev/vda 1048576`.
fn device(name: &str, entry: &Value) -> Option<String> {
    match entry {
        Value::Struct(fields) => match fields.as_slice() {
            [Value::Str(device), Value::U64(u64::MAX)] => Some(format!("-p{name}={device} infinity")),
            // Plain: here systemd's M is a million.
            [Value::Str(device), Value::U64(rate)] => Some(format!("-p{name}={device} {rate}")),
            _ => None,
        },
        _ => None,
    }
}

/// `80M`, `infinity`.
fn number(n: u64) -> String {
    const MIB: u64 = 1 << 20;
    match n {
        u64::MAX => "infinity".to_owned(),
        n if n >= MIB && n % MIB == 0 => format!("{}M", n / MIB),
        n => n.to_string(),
    }
}

/// Bytes of a mask, the lowest first: `0,2,3`.
fn bits(bytes: &[Value]) -> String {
    let set = |(at, byte): (usize, &Value)| match byte {
        Value::Byte(byte) => (0..8).filter(|bit| byte >> bit & 1 == 1).map(|bit| (at * 8 + bit).to_string()).collect(),
        _ => Vec::new(),
    };
    bytes.iter().enumerate().flat_map(set).collect::<Vec<_>>().join(",")
}
