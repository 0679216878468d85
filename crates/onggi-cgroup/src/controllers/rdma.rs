//! `linux.resources.rdma`; the same file in both versions.

use onggi_spec::oci::runtime::LinuxResources;

use super::{Setting, Settings, Version, bad};

pub(super) fn settings(resources: &LinuxResources, _version: Version) -> Settings {
    let mut out = Vec::new();
    for (device, limit) in &resources.rdma {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !(1..=64).contains(&device.len()) || !device.bytes().all(plain) {
            return Err(bad("rdma", device, "use the name of an RDMA device such as mlx5_0"));
        }
        let mut value = device.clone();
        for (key, n) in [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)] {
            if let Some(n) = n {
                value += &format!(" {key}={n}");
            }
        }
        out.push(Setting::new("rdma", "rdma.max", value, format!("RDMA limit on {device}")));
    }
    Ok(out)
}
