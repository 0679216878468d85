//! `linux.resources.hugepageLimits`. Reservations are limited too where the kernel can (5.7).

use onggi_spec::oci::runtime::LinuxResources;

use super::{Setting, Settings, Version, bad};

pub(super) fn settings(resources: &LinuxResources, version: Version) -> Settings {
    let suffix = match version {
        Version::V1 => "limit_in_bytes",
        Version::V2 => "max",
    };
    let mut out = Vec::new();
    for h in &resources.hugepage_limits {
        let size = &h.page_size;
        let digits = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
        let ok = digits.is_some_and(|d| (1..=8).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_digit()));
        if !ok {
            return Err(bad("hugepageLimits.pageSize", size, "use a size such as 2MB or 1GB"));
        }
        let what = format!("limit of {} bytes in {size} pages", h.limit);
        out.push(Setting::new("hugetlb", format!("hugetlb.{size}.{suffix}"), h.limit, what.clone()));
        out.push(Setting::new("hugetlb", format!("hugetlb.{size}.rsvd.{suffix}"), h.limit, what).bonus());
    }
    Ok(out)
}
