//! Limits of the host that many containers together run into.

use super::{DoctorFacts, Finding, Level};

const GROUP: &str = "limits";

/// A number of /proc/sys with the least that is comfortable for a hundred containers.
const NUMBERS: [(&str, &str, u64, &str); 7] = [
    (
        "inotify-instances",
        "fs/inotify/max_user_instances",
        512,
        "programs that watch files; shared by all containers of a user",
    ),
    ("inotify-watches", "fs/inotify/max_user_watches", 65_536, "files that are watched"),
    ("pid-max", "kernel/pid_max", 32_768, "processes and threads of the machine"),
    ("threads-max", "kernel/threads-max", 16_384, "threads of the machine"),
    ("keys", "kernel/keys/maxkeys", 200, "every container has a session keyring of its own"),
    ("keys-bytes", "kernel/keys/maxbytes", 20_000, "what keyrings hold"),
    ("mount-namespaces", "user/max_mnt_namespaces", 1_024, "one for every container"),
];
/// Files that a server in a container expects to open.
const FILES: u64 = 65_536;

pub(super) fn judge(f: &DoctorFacts) -> Vec<Finding> {
    let mut out: Vec<Finding> = NUMBERS.into_iter().filter_map(|row| number(f, row)).collect();
    out.push(files(f));
    out
}

fn number(
    f: &DoctorFacts,
    (name, sysctl, least, why): (&'static str, &'static str, u64, &'static str),
) -> Option<Finding> {
    let value: u64 = f.sysctls.get(sysctl)?.parse().ok()?;
    let dotted = sysctl.replace('/', ".");
    let found = Finding::ok(GROUP, name, format!("{dotted} = {value}"), why);
    Some(found.when(value < least, Level::Warn, format!("sysctl -w {dotted}={least}")))
}

fn files(f: &DoctorFacts) -> Finding {
    let text = format!("{} (hard {})", f.nofile_soft, f.host.nofile_hard);
    let found = Finding::ok(GROUP, "open-files", text, "containers inherit the hard limit");
    found.when(f.host.nofile_hard < FILES, Level::Warn, format!("ulimit -Hn {FILES}; or LimitNOFILE= in a unit"))
}
