//! `--sysctl`: `key=value` of what a container has of its own.

use crate::ParseError;

/// Settings of the IPC namespace (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Longest value: the kernel takes one page.
const MAX_VALUE: usize = 4096;

/// Whose a setting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The network namespace.
    Network,
    /// The IPC namespace.
    Ipc,
}

/// The namespace that a setting belongs to; `None` for those of the whole machine.
pub fn owner(key: &str) -> Option<Owner> {
    match key {
        _ if key.starts_with("net.") => Some(Owner::Network),
        _ if key.starts_with("fs.mqueue.") || IPC.contains(&key) => Some(Owner::Ipc),
        _ => None,
    }
}

/// Reads one `--sysctl`.
///
/// # Errors
/// Outside the grammar, or a setting of the whole machine.
pub fn parse_sysctl(text: &str) -> Result<(String, String), ParseError> {
    let err = |reason: &str| ParseError::new("sysctl", text, reason);
    let (key, value) = text.split_once('=').ok_or_else(|| err("the value is missing").hint("write key=value"))?;
    let word = |w: &str| !w.is_empty() && w != ".." && !w.contains('\0');
    // net/ipv4/conf/eth0.1/forwarding is how a name with a dot in it is written.
    if !key.split(['.', '/']).all(word) || value.contains('\0') || value.len() > MAX_VALUE {
        return Err(err("it is no name of a setting, or its value is too long"));
    }
    match owner(&key.replace('/', ".")) {
        Some(_) => Ok((key.to_owned(), value.to_owned())),
        None => Err(err("it is a setting of the whole machine, which no container may change")
            .hint("settings below net., fs.mqueue., and kernel.msg*, kernel.sem, kernel.shm* are a container's own")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_namespaces_are_taken() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(parse_sysctl("net.core.somaxconn=1024"), pair("net.core.somaxconn", "1024"));
        assert_eq!(parse_sysctl("kernel.sem=1 2 3 4"), pair("kernel.sem", "1 2 3 4"));
        assert_eq!(parse_sysctl("fs.mqueue.msg_max=10"), pair("fs.mqueue.msg_max", "10"));
        assert_eq!(owner("net.ipv4.ip_forward"), Some(Owner::Network));
        assert_eq!(owner("kernel.shmmax"), Some(Owner::Ipc));
    }

    #[test]
    fn settings_of_the_machine_and_paths_are_refused() {
        for bad in
            ["", "net.a", "kernel.panic=1", "vm.swappiness=1", "net./../../x=1", "net...x=1", "=1", "kernel.hostname=x"]
        {
            assert!(parse_sysctl(bad).is_err(), "{bad:?}");
        }
    }
}
