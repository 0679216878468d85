//! `plan`: reads a request on stdin and prints the plan, without doing anything and without privilege.

use std::{
    io::{self, Read},
    path::Path,
};

use onggi_sandbox::{
    CgroupDriver,
    plan::{PlanInput, SandboxFacts, SandboxPlan},
};
use onggi_spec::{
    ParseError,
    facts::CgroupLayout,
    monitor::RootFs,
    oci::runtime::{LinuxNamespaceType, Spec},
};
use serde::Deserialize;

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag},
    log::print,
};

/// Longest request.
const MAX_REQUEST: u64 = 8 * 1024 * 1024;

/// What is read.
#[derive(Debug, Deserialize)]
struct Request {
    config: Spec,
    rootfs: RootFs,
    cgroup_layout: CgroupLayout,
    #[serde(default)]
    init: bool,
    /// Relative paths of the configuration start here.
    #[serde(default = "default_bundle")]
    bundle: std::path::PathBuf,
    #[serde(default = "default_id")]
    id: String,
}

fn default_bundle() -> std::path::PathBuf {
    "/run/onggi-oci/bundle".into()
}

fn default_id() -> String {
    "container".into()
}

pub(super) const FLAGS: &[Flag] = &[Flag::value("format", "f").help("select one of: words, json or sh")];

pub(super) fn plan(_: &Global, args: &Args) -> Outcome {
    let request = read()?;
    let plan = make(&request)?;
    let text = match args.text("format").unwrap_or("words") {
        "words" => plan.words().join("\n") + "\n",
        "json" => {
            let json = serde_json::to_string_pretty(&plan);
            json.map_err(|e| ParseError::new("plan", "", e.to_string()))? + "\n"
        }
        "sh" => plan.script(),
        other => return Err(CliError::Usage(format!("--format {other:?} is none of words, json, sh"))),
    };
    print(&text);
    Ok(0)
}

fn read() -> Result<Request, CliError> {
    let mut text = Vec::new();
    io::stdin().lock().take(MAX_REQUEST).read_to_end(&mut text).map_err(|source| CliError::File {
        what: "read",
        path: "stdin".into(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|e| ParseError::new("plan request", "stdin", e.to_string()).into())
}

fn make(request: &Request) -> Result<SandboxPlan, CliError> {
    let privileged = !maps_only_the_caller(&request.config);
    let facts = SandboxFacts {
        cgroup_layout: if privileged { request.cgroup_layout.clone() } else { CgroupLayout::None },
        visible_cgroups: (!privileged).then(|| request.cgroup_layout.clone()),
        privileged,
        sets_groups: privileged,
        caller: (0, 0),
        rootless_cgroups: !privileged,
        apparmor: true,
        selinux: true,
        systemd: None,
        rdt: Some(onggi_sandbox::plan::rdt::RdtFacts {
            mount: "/sys/fs/resctrl".into(),
            cache: true,
            bandwidth: true,
            monitoring: true,
        }),
    };
    let input = PlanInput {
        id: &request.id,
        bundle: Path::new(&request.bundle),
        config: &request.config,
        rootfs: &request.rootfs,
        netns_given: false,
        init: request.init,
        die_with_parent: false,
        wait_for_start: false,
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
        cgroup_driver: CgroupDriver::Lean,
    };
    Ok(onggi_sandbox::plan::plan(&input, &facts)?)
}

/// The only mapping that an ordinary user can make: the plan is for one.
fn maps_only_the_caller(config: &Spec) -> bool {
    let Some(linux) = &config.linux else { return false };
    let user = linux.namespaces.iter().any(|n| n.typ == LinuxNamespaceType::User && n.path.is_none());
    user && linux.uid_mappings.iter().map(|m| u64::from(m.size)).sum::<u64>() == 1
}
