//! Capability names (capabilities(7), linux/capability.h) and Docker's rules for `--cap-add`, `--cap-drop`.

use crate::ParseError;

/// Every capability; the position is the kernel's number.
pub const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What each permits, in the same order (capabilities(7)).
const MEANINGS: [&str; 41] = [
    "change the owner of any file",
    "read, write and execute files whatever their permissions say",
    "read any file and list any directory",
    "change permissions, times and attributes of files of others",
    "keep set-user-id and set-group-id bits when a file changes",
    "send signals to processes of others",
    "take any group, and any supplementary groups",
    "take any user id",
    "drop capabilities from the bounding set, and raise inheritable ones",
    "set the immutable and append-only attributes of files",
    "listen on ports below 1024",
    "unused by the kernel (broadcasts, multicast)",
    "configure interfaces, addresses, routes, firewall and tunnels",
    "raw and packet sockets: forge any packet, see all traffic (ping, tcpdump)",
    "lock memory, and use huge pages",
    "override permissions of System V IPC objects",
    "load and unload kernel modules",
    "access I/O ports and raw devices, /dev/mem",
    "chroot(2), and join mount namespaces",
    "trace processes of others and read their memory",
    "switch process accounting",
    "mount, set up namespaces, and most other administration: close to all of root",
    "reboot, and load another kernel",
    "raise priorities, real-time scheduling, CPU affinity of others",
    "exceed limits and quotas, raise rlimits",
    "set the system clock",
    "hang up and configure terminals",
    "make device nodes",
    "take leases on files of others",
    "write to the kernel's audit log",
    "configure auditing",
    "set capabilities of files",
    "override mandatory access control (Smack)",
    "configure mandatory access control",
    "read the kernel's log, see kernel addresses",
    "wake the system from sleep",
    "keep the system from sleeping",
    "read the audit log by netlink",
    "observe performance of the whole system (perf_event_open)",
    "load BPF programs",
    "checkpoint and restore processes, choose process numbers",
];

/// The default bounding set: Docker's fourteen less MKNOD, NET_RAW and AUDIT_WRITE.
pub const DEFAULT: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// A `--cap-add` or `--cap-drop` value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapArg {
    /// `ALL`.
    All,
    /// One capability, by its full name.
    One(&'static str),
}

/// Reads a capability: any letter case, `CAP_` optional, `ALL`.
///
/// # Errors
/// For an unknown name.
pub fn parse_capability(text: &str) -> Result<CapArg, ParseError> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if upper == "ALL" {
        return Ok(CapArg::All);
    }
    let found = ALL.iter().find(|name| &name[4..] == bare);
    found.map(|name| CapArg::One(name)).ok_or_else(|| {
        ParseError::new("capability", text, "no such capability")
            .hint("capabilities(7) lists them, as in NET_ADMIN; ALL means every one")
    })
}

/// The kernel's number of a full name.
pub fn number(name: &str) -> Option<u32> {
    ALL.iter().position(|n| *n == name).and_then(|n| u32::try_from(n).ok())
}

/// What a capability permits, in a few words; `None` for a number that has no name.
pub fn meaning(number: u32) -> Option<&'static str> {
    MEANINGS.get(usize::try_from(number).ok()?).copied()
}

/// The numbers of a mask, in their order.
pub fn numbers(mask: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |n| mask >> n & 1 == 1)
}

/// The name of a number: small letters as libcap writes it; the number itself without a name.
pub fn lower_name(number: u32) -> String {
    let name = usize::try_from(number).ok().and_then(|n| ALL.get(n));
    name.map_or_else(|| number.to_string(), |name| name.to_ascii_lowercase())
}

/// `CAP_CHOWN, CAP_KILL`: the names of a mask; a bit without a name is its number.
pub fn names(mask: u64) -> String {
    let name = |n: usize| ALL.get(n).map_or_else(|| format!("capability {n}"), |name| (*name).to_owned());
    (0..64).filter(|n| mask >> n & 1 == 1).map(name).collect::<Vec<_>>().join(", ")
}

/// The set that `add` and `drop` make of the default, in the kernel's order, as Docker: `--cap-add ALL` is
/// everything but what is dropped, `--cap-drop ALL` is only what is added, otherwise the default less
/// `drop` plus `add`.
///
/// # Errors
/// For an unknown name.
pub fn bounding_set(add: &[String], drop: &[String]) -> Result<Vec<&'static str>, ParseError> {
    let parse = |list: &[String]| list.iter().map(|t| parse_capability(t)).collect::<Result<Vec<_>, _>>();
    let (add, drop) = (parse(add)?, parse(drop)?);
    let wanted = |name: &&'static str| {
        let (added, dropped) = (add.contains(&CapArg::One(name)), drop.contains(&CapArg::One(name)));
        match (add.contains(&CapArg::All), drop.contains(&CapArg::All)) {
            (true, _) => !dropped,
            (false, true) => added,
            (false, false) => added || (DEFAULT.contains(name) && !dropped),
        }
    };
    Ok(ALL.iter().copied().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Vec<&'static str> {
        let own = |l: &[&str]| l.iter().map(ToString::to_string).collect::<Vec<_>>();
        bounding_set(&own(add), &own(drop)).expect("known names")
    }

    #[test]
    fn names_are_found_in_every_usual_spelling() {
        for text in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_Net_Admin"] {
            assert_eq!(parse_capability(text), Ok(CapArg::One("CAP_NET_ADMIN")), "{text}");
        }
        assert_eq!(parse_capability("all"), Ok(CapArg::All));
        for bad in ["", "CAP_", "NETADMIN", "CAP_CAP_KILL", "CAP_ALL"] {
            assert!(parse_capability(bad).is_err(), "{bad}");
        }
        assert_eq!(number("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(names(0x21 | 1 << 45), "CAP_CHOWN, CAP_KILL, capability 45");
    }

    #[test]
    fn sets_are_combined_as_docker_does() {
        assert_eq!(set(&[], &[]).len(), 11);
        assert_eq!(set(&["NET_RAW"], &["ALL"]), ["CAP_NET_RAW"]);
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]).len(), 40);
        assert!(!set(&[], &["CHOWN"]).contains(&"CAP_CHOWN"));
        assert_eq!(set(&["NET_ADMIN"], &[]).len(), 12);
        assert_eq!(set(&[], &["ALL"]), [] as [&str; 0]);
    }
}
