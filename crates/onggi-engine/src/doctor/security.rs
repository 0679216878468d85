//! Linux security modules.

use super::{DoctorFacts, Finding, Level};

const GROUP: &str = "security";

pub(super) fn judge(f: &DoctorFacts) -> Vec<Finding> {
    vec![apparmor(f), selinux(f)]
}

fn apparmor(f: &DoctorFacts) -> Finding {
    let parser = f.helpers.contains_key("apparmor_parser");
    let text = match (f.host.apparmor, parser) {
        (true, true) => "yes",
        (true, false) => "yes, but apparmor_parser is missing: containers run without a profile",
        (false, _) => "not in this kernel",
    };
    let found = Finding::ok(GROUP, "apparmor", text, "a second lock behind seccomp and capabilities");
    found.when(f.host.apparmor && !parser && !f.rootless, Level::Warn, "apt install apparmor")
}

fn selinux(f: &DoctorFacts) -> Finding {
    let found = Finding::ok(
        GROUP,
        "selinux",
        f.selinux.as_deref().unwrap_or("not in this kernel"),
        "labels decide what a container may touch; none is applied unless the configuration names one",
    );
    found.when(
        f.selinux.as_deref() == Some("enforcing"),
        Level::Warn,
        "ausearch -m avc -ts recent (look for denials); setenforce 0 to try without",
    )
}
