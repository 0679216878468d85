//! What a container has of the host: devices, namespaces, privileges; and filesystems that are not the host's.

use clap::Args;
use onggi_spec::{
    ContainerRequest, ParseError,
    device::{parse_device, parse_device_rule},
    mount::MountSpec,
    request::SharedNamespaces,
    tmpfs::{AnyMount, parse_mount, parse_tmpfs},
};

use super::Caller;

/// Options of the host's devices and namespaces.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct HostArgs {
    /// Mount a temporary filesystem
    #[arg(long, value_name = "PATH[:OPTIONS]", allow_hyphen_values = true)]
    tmpfs: Vec<String>,
    /// Mount a path of the host or a temporary filesystem: type=bind,source=PATH,target=PATH[,readonly] or
    /// type=tmpfs,target=PATH[,tmpfs-size=SIZE,tmpfs-mode=MODE]
    #[arg(long, value_name = "KEY=VALUE,…", allow_hyphen_values = true)]
    mount: Vec<String>,
    /// Give a device of the host, or all of a directory
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]", allow_hyphen_values = true)]
    device: Vec<String>,
    /// Allow devices by their numbers, as in 'c 1:3 rwm'
    #[arg(long, value_name = "TYPE MAJOR:MINOR ACCESS", allow_hyphen_values = true)]
    device_cgroup_rule: Vec<String>,
    /// Hold nothing back: every capability and device, no filter of system calls, no masked path
    #[arg(long)]
    privileged: bool,
    /// PID namespace: host, or private for one of its own
    #[arg(long, value_name = "MODE", allow_hyphen_values = true)]
    pid: Option<String>,
    /// IPC namespace and /dev/shm: host, or private for its own
    #[arg(long, value_name = "MODE", allow_hyphen_values = true)]
    ipc: Option<String>,
    /// Host name: host, or private for its own
    #[arg(long, value_name = "MODE", allow_hyphen_values = true)]
    uts: Option<String>,
    /// Cgroup namespace: host, or private for one of its own
    #[arg(long, value_name = "MODE", allow_hyphen_values = true)]
    cgroupns: Option<String>,
}

/// True for the host's namespace. `private` is what each kind calls its own, where Docker has a word for it.
fn shared(option: &'static str, text: Option<&str>) -> Result<bool, ParseError> {
    match text {
        None | Some("" | "private") => Ok(false),
        Some("host") => Ok(true),
        // Nobody can join it yet, so that it may be called shareable.
        Some("shareable") if option == "--ipc" => Ok(false),
        Some(text) if text.starts_with("container:") => {
            Err(ParseError::new("namespace", text, format!("{option} of another container is not shared yet")).hint(
                "use host or private; `onggi ns enter NAME` runs a program of the host in a container's namespaces",
            ))
        }
        Some(text) => {
            Err(ParseError::new("namespace", text, format!("{option} has no such mode")).hint("use host or private"))
        }
    }
}

impl HostArgs {
    /// Puts what was asked for into `request`.
    pub(super) fn fill(self, request: &mut ContainerRequest, caller: &Caller<'_>) -> Result<(), ParseError> {
        let Self { tmpfs, mount, device, device_cgroup_rule, privileged, pid, ipc, uts, cgroupns } = self;
        request.tmpfs = tmpfs.iter().map(|text| parse_tmpfs(text)).collect::<Result<_, _>>()?;
        for text in &mount {
            match parse_mount(text)? {
                AnyMount::Bind(bind) => request.mounts.push(resolved(bind, caller)?),
                AnyMount::Tmpfs(tmpfs) => request.tmpfs.push(tmpfs),
            }
        }
        request.devices = device.iter().map(|text| parse_device(text)).collect::<Result<_, _>>()?;
        request.device_rules =
            device_cgroup_rule.iter().map(|text| parse_device_rule(text)).collect::<Result<_, _>>()?;
        request.privileged = privileged;
        request.shared = SharedNamespaces {
            pid: shared("--pid", pid.as_deref())?,
            ipc: shared("--ipc", ipc.as_deref())?,
            uts: shared("--uts", uts.as_deref())?,
            cgroup: shared("--cgroupns", cgroupns.as_deref())?,
        };
        Ok(())
    }
}

/// A relative source is below the caller's directory.
fn resolved(mut bind: MountSpec, caller: &Caller<'_>) -> Result<MountSpec, ParseError> {
    let source = caller.directory.join(&bind.source);
    let source =
        source.to_str().ok_or_else(|| ParseError::new("mount", &bind.source, "your directory is not UTF-8"))?;
    bind.source = source.to_owned();
    Ok(bind)
}
