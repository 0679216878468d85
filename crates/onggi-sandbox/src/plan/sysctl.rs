//! `linux.sysctl`: only keys that belong to a namespace of the container (I16). proc(5), namespaces(7).

use std::path::{Path, PathBuf};

use onggi_spec::{oci::runtime::LinuxNamespaceType as Kind, sysctl};

use super::{SetupOp, build::Context};
use crate::error::{Result, StartFailureError};

/// One operation per key.
pub(super) fn plan_sysctls(cx: &Context<'_>) -> Result<Vec<SetupOp>> {
    cx.linux.sysctl.iter().map(|(key, value)| plan_one(cx, key, value)).collect()
}

fn plan_one(cx: &Context<'_>, key: &str, value: &str) -> Result<SetupOp> {
    let fail = |why: String| Err(StartFailureError::new(format!("linux.sysctl {key:?}: {why}")));
    let path = match path_of(key) {
        Some(path) => path,
        None => return fail("is not a sysctl name: it contains an invalid path".into()),
    };
    if value.bytes().any(|b| b == b'\n' || b == 0) {
        return fail("the value contains a newline or NUL".into());
    }
    // runc's words, which engines show.
    let has = |kind| cx.namespaces.has(kind);
    let dotted = dotted(key);
    match kind_of(&path) {
        Some(Kind::Ipc) if has(Kind::Ipc) => {}
        Some(Kind::Ipc) => return fail("is not allowed in the hosts ipc namespace: it would change the host".into()),
        Some(Kind::Network) if has(Kind::Network) => {}
        Some(Kind::Network) => return fail("not allowed in host network namespace: it would change the host".into()),
        Some(_) if has(Kind::Uts) && dotted == "kernel.hostname" => {
            return fail("is not allowed as it conflicts with the OCI \"hostname\" field".into());
        }
        Some(_) if has(Kind::Uts) => {}
        _ => return fail("is not in a separate kernel namespace: it would change the host".into()),
    }
    Ok(SetupOp::Sysctl { key: key.to_owned(), path, value: value.to_owned() })
}

/// The namespace that a path below /proc/sys belongs to.
fn kind_of(path: &Path) -> Option<Kind> {
    let text = path.to_str()?;
    match sysctl::owner(&dotted(text)) {
        Some(sysctl::Owner::Ipc) => Some(Kind::Ipc),
        Some(sysctl::Owner::Network) => Some(Kind::Network),
        None => matches!(text, "kernel/domainname" | "kernel/hostname").then_some(Kind::Uts),
    }
}

/// The usual spelling of a key.
fn dotted(key: &str) -> String {
    key.replace('/', ".")
}

/// `net.ipv4.ip_forward` or `net/ipv4/conf/eth0.1/forwarding` → a path below /proc/sys. The first separator
/// decides which of the two swaps places with the other, as in sysctl(8).
fn path_of(key: &str) -> Option<PathBuf> {
    let slash_first = match (key.find('.'), key.find('/')) {
        (Some(d), Some(s)) => s < d,
        (None, Some(_)) => true,
        _ => false,
    };
    let converted: String = match slash_first {
        true => key.to_owned(),
        false => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    };
    let safe = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@' | b':'))
    };
    (converted.split('/').all(safe) && converted.contains('/')).then(|| PathBuf::from(converted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_and_injections_do_not() {
        assert_eq!(path_of("net.ipv4.ip_forward"), Some(PathBuf::from("net/ipv4/ip_forward")));
        assert_eq!(path_of("net.ipv4.conf.eth0/1.forwarding"), Some(PathBuf::from("net/ipv4/conf/eth0.1/forwarding")));
        assert_eq!(path_of("net/ipv4/ip_forward"), Some(PathBuf::from("net/ipv4/ip_forward")));
        for bad in
            ["", "kernel", "net...x", "net/../kernel/core_pattern", "kernel.shm_rmid_forced=1+kernel.core_pattern"]
        {
            assert_eq!(path_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_namespaced_keys_have_a_namespace() {
        let of = |key: &str| path_of(key).and_then(|path| kind_of(&path));
        for key in ["kernel.msgmax", "kernel.sem", "kernel.shmall", "kernel.shm_rmid_forced", "fs.mqueue.msg_max"] {
            assert_eq!(of(key), Some(Kind::Ipc), "{key}");
        }
        assert_eq!(of("fs.mqueue.msg_max"), Some(Kind::Ipc));
        assert_eq!(of("fs/mqueue/msg_max"), Some(Kind::Ipc));
        assert_eq!(of("net.core.somaxconn"), Some(Kind::Network));
        assert_eq!(of("net/ipv4/conf/eth0.1/forwarding"), Some(Kind::Network));
        assert_eq!(of("kernel.domainname"), Some(Kind::Uts));
        for other in ["kernel.core_pattern", "vm.swappiness", "kernel.shmmax.x", "netx.core", "fs.mqueue"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
