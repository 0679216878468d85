//! The eight kinds of namespaces (namespaces(7)).

use std::{fmt, str::FromStr};

use onggi_spec::ParseError;
use onggi_sys::ns::flag;
use serde::{Deserialize, Serialize};

/// A kind of namespace. In the order in which a process can join them: its user namespace first, which may give the
/// right to join the others, its mount namespace last, after which paths mean something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Users, groups and capabilities.
    User,
    /// Roots of the control groups that are seen.
    Cgroup,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name and NIS domain name.
    Uts,
    /// Network devices, addresses, ports, rules.
    Net,
    /// Process numbers.
    Pid,
    /// Offsets of the monotonic and the boot clock.
    Time,
    /// Mount points.
    Mnt,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::User, Self::Cgroup, Self::Ipc, Self::Uts, Self::Net, Self::Pid, Self::Time, Self::Mnt];

    /// The name of its file in `/proc/PID/ns`, which is lsns(8)'s name too.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::Mnt => "mnt",
        }
    }

    /// The word of nsenter(1)'s and unshare(1)'s long options.
    pub fn option(self) -> &'static str {
        if self == Self::Mnt { "mount" } else { self.name() }
    }

    /// `CLONE_NEW…`, for setns(2) and unshare(2).
    pub fn flag(self) -> u64 {
        match self {
            Self::User => flag::USER,
            Self::Cgroup => flag::CGROUP,
            Self::Ipc => flag::IPC,
            Self::Uts => flag::UTS,
            Self::Net => flag::NETWORK,
            Self::Pid => flag::PID,
            Self::Time => flag::TIME,
            Self::Mnt => flag::MOUNT,
        }
    }

    /// What processes of one namespace have in common, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::User => "users, groups and what capabilities apply to",
            Self::Cgroup => "the directory that control groups are seen from",
            Self::Ipc => "System V IPC and POSIX message queues",
            Self::Uts => "the host name",
            Self::Net => "network devices, addresses, ports and firewall",
            Self::Pid => "process numbers",
            Self::Time => "offsets of the monotonic and the boot clock",
            Self::Mnt => "what is mounted where",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = ParseError;

    /// The name in /proc, or the word of unshare(1)'s long options (`mount`).
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let name = match text {
            "mount" => "mnt",
            "network" => "net",
            other => other,
        };
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            ParseError::new("kind of namespace", text, "expected cgroup, ipc, mnt, net, pid, time, user or uts")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back_from_its_name() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!(("mount".parse(), "network".parse()), (Ok(Kind::Mnt), Ok(Kind::Net)));
        assert!("".parse::<Kind>().is_err() && "Net".parse::<Kind>().is_err());
    }

    #[test]
    fn flags_are_distinct() {
        let all = Kind::ALL.iter().fold(0, |all, kind| all | kind.flag());
        assert_eq!(all.count_ones(), 8);
    }
}
