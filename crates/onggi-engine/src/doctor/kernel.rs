//! The kernel: version, architecture, namespaces, overlay, seccomp, time namespaces, the view of /proc.

use super::{DoctorFacts, Finding, Level};

const GROUP: &str = "kernel";
/// openat2(2), clone3(2) with pidfds and time namespaces are all there.
const LEAST: (u32, u32) = (5, 6);
/// mount_setattr(2), overlay in user namespaces, cgroup.kill come by here.
const GOOD: (u32, u32) = (5, 15);

pub(super) fn judge(f: &DoctorFacts) -> Vec<Finding> {
    vec![version(f), architecture(f), namespaces(f), user_namespaces(f), time(f), overlay(f), seccomp(f), proc(f)]
}

fn version(f: &DoctorFacts) -> Finding {
    let found = Finding::ok(GROUP, "version", &f.host.kernel, "system calls that the runtime is built on");
    let number = number(&f.host.kernel);
    let fix = "install a newer kernel: apt install linux-image-amd64 (or your distribution's), then reboot";
    match number {
        Some(n) if n >= GOOD => found,
        Some(n) if n >= LEAST => found.bad(Level::Warn, fix),
        _ => found.bad(Level::Fail, fix),
    }
}

/// `6.18.5-foo` is (6, 18).
fn number(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn architecture(f: &DoctorFacts) -> Finding {
    let found = Finding::ok(GROUP, "architecture", &f.host.architecture, "programs of images are for one processor");
    found.when(f.host.architecture != "amd64", Level::Fail, "use an x86-64 machine: no other is supported yet")
}

fn namespaces(f: &DoctorFacts) -> Finding {
    let missing: Vec<&str> = ["mnt", "uts", "ipc", "net", "pid", "cgroup", "user"]
        .into_iter()
        .filter(|n| !f.namespaces.contains(*n))
        .collect();
    let text = match missing.is_empty() {
        true => "mnt uts ipc net pid cgroup user".to_owned(),
        false => format!("missing: {}", missing.join(" ")),
    };
    let found = Finding::ok(GROUP, "namespaces", text, "what a container is made of");
    let fix = "use a kernel built with CONFIG_NAMESPACES and all kinds below it (your distribution's has them)";
    found.when(!missing.is_empty(), Level::Fail, fix)
}

fn user_namespaces(f: &DoctorFacts) -> Finding {
    let value = |name: &str| f.sysctls.get(name).map(String::as_str);
    let level = if f.rootless { Level::Fail } else { Level::Warn };
    let found = |text: &str| Finding::ok(GROUP, "user-namespaces", text, "containers without root, and --userns auto");
    if value("user/max_user_namespaces").is_none_or(|n| n == "0") {
        return found("none may be made (user.max_user_namespaces = 0)")
            .bad(level, "sysctl -w user.max_user_namespaces=28633");
    }
    if value("kernel/unprivileged_userns_clone") == Some("0") {
        return found("only root may make them (kernel.unprivileged_userns_clone = 0)")
            .bad(level, "sysctl -w kernel.unprivileged_userns_clone=1");
    }
    if value("kernel/apparmor_restrict_unprivileged_userns") == Some("1") {
        return found("AppArmor takes their capabilities away from ordinary users")
            .bad(level, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    }
    found(&format!("up to {}", value("user/max_user_namespaces").unwrap_or_default()))
}

fn time(f: &DoctorFacts) -> Finding {
    let there = f.namespaces.contains("time");
    let found =
        Finding::ok(GROUP, "time-namespaces", if there { "yes" } else { "no" }, "offsets of a container's boot clock");
    found.when(!there, Level::Warn, "use Linux 5.6 or later with CONFIG_TIME_NS=y")
}

fn overlay(f: &DoctorFacts) -> Finding {
    let text = if f.host.overlay { "yes" } else { "no" };
    let found = Finding::ok(GROUP, "overlay", text, "a container's files above those of its image");
    found.when(!f.host.overlay, Level::Fail, "modprobe overlay && echo overlay > /etc/modules-load.d/overlay.conf")
}

fn seccomp(f: &DoctorFacts) -> Finding {
    let actions = f.seccomp_actions.trim();
    let found =
        |text: &str| Finding::ok(GROUP, "seccomp", text, "system calls that containers do not need are refused");
    if !f.host.seccomp {
        return found("no").bad(Level::Warn, "use a kernel built with CONFIG_SECCOMP_FILTER=y");
    }
    let notify = actions.split(' ').any(|a| a == "user_notif");
    found(&format!("actions: {actions}")).when(
        !notify,
        Level::Warn,
        "use Linux 5.0 or later: `onggi learn` and listeners of profiles need user_notif",
    )
}

fn proc(f: &DoctorFacts) -> Finding {
    let hidden =
        f.proc_options.split(',').find(|o| o.starts_with("hidepid=") && *o != "hidepid=0" && *o != "hidepid=off");
    let found = Finding::ok(
        GROUP,
        "proc-hidepid",
        hidden.unwrap_or("off"),
        "who may see which processes; without root, status of other users' containers",
    );
    found.when(hidden.is_some() && f.rootless, Level::Warn, "mount -o remount,hidepid=0 /proc")
}
