//! `linux.netDevices`: interfaces of the host that become the container's. config-linux.md "Network Devices".

use onggi_spec::oci::runtime::LinuxNamespaceType;

use super::{NetDevice, SetupOp, build::Context};
use crate::error::{Result, StartFailureError};

/// `IFNAMSIZ`, with the final NUL.
const NAME_SIZE: usize = 16;

/// One operation for all of them, or none.
pub(super) fn plan_net_devices(cx: &Context<'_>) -> Result<Option<SetupOp>> {
    let asked = &cx.linux.net_devices;
    if asked.is_empty() {
        return Ok(None);
    }
    if !cx.namespaces.has(LinuxNamespaceType::Network) {
        return Err(StartFailureError::new("unable to move network devices without a NET namespace"));
    }
    if !cx.facts.privileged {
        return Err(StartFailureError::new("network devices are not supported for rootless containers"));
    }
    let mut devices: Vec<NetDevice> = Vec::new();
    for (name, device) in asked {
        let new_name = device.name.as_deref().filter(|n| !n.is_empty()).unwrap_or(name);
        if let Some(bad) = [name.as_str(), new_name].into_iter().find(|n| !is_valid(n)) {
            return Err(StartFailureError::new(format!("invalid network device name {bad:?}")));
        }
        if devices.iter().any(|d| d.new_name == new_name) {
            return Err(StartFailureError::new(format!("two network devices would be {new_name:?} in the container")));
        }
        devices.push(NetDevice { name: name.clone(), new_name: new_name.to_owned() });
    }
    Ok(Some(SetupOp::NetDevices { devices }))
}

/// The kernel's rule (dev_valid_name).
fn is_valid(name: &str) -> bool {
    let bad = |b: u8| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace() || b == 0x0b;
    !name.is_empty() && name.len() < NAME_SIZE && name != "." && name != ".." && !name.bytes().any(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for good in ["eth0", "a.b", "x-1", "fifteen-letters"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\u{b}b", "sixteen-letters!"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
