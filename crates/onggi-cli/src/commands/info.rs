//! `onggi info`.

use std::fmt::Write as _;

use clap::Args;
use onggi_engine::Info;
use onggi_spec::quantity::human_memory;
use serde_json::{Value, json};

use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{self, format},
};

/// Arguments of `info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Template, or `json`
    #[arg(short, long)]
    format: Option<String>,
}

impl InfoArgs {
    /// Prints what is known of the host and the store.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let info = global.engine()?.info()?;
        match self.format.as_deref() {
            None | Some("") => render::stdout(&text(&info))?,
            format => render::stdout(&format::one(format, &value(&info))?)?,
        }
        Ok(0)
    }
}

/// Docker's names.
fn value(i: &Info) -> Value {
    json!({
        "Containers": i.running + i.paused + i.stopped,
        "ContainersRunning": i.running,
        "ContainersPaused": i.paused,
        "ContainersStopped": i.stopped,
        "Images": i.images,
        "Driver": i.driver,
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": i.cgroup_version,
        "KernelVersion": i.facts.kernel,
        "OperatingSystem": i.operating_system,
        "OSType": "linux",
        "Architecture": i.machine,
        "NCPU": i.facts.cpus,
        "MemTotal": i.memory,
        "Name": i.hostname,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "DockerRootDir": i.root,
        "RunRoot": i.runroot,
        "SecurityOptions": security(i),
        "Rootless": i.rootless,
    })
}

fn security(i: &Info) -> Vec<&'static str> {
    let all = [
        (i.facts.apparmor, "name=apparmor"),
        (i.facts.seccomp, "name=seccomp,profile=builtin"),
        (i.rootless, "name=rootless"),
    ];
    all.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect()
}

fn text(i: &Info) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{key}: {value}");
    };
    line("Containers", (i.running + i.paused + i.stopped).to_string());
    line(" Running", i.running.to_string());
    line(" Paused", i.paused.to_string());
    line(" Stopped", i.stopped.to_string());
    line("Images", i.images.to_string());
    line("Version", env!("CARGO_PKG_VERSION").to_owned());
    line("Storage Driver", i.driver.to_owned());
    line("Logging Driver", "json-file".to_owned());
    let hybrid = if i.cgroup_hybrid { " (hybrid)" } else { "" };
    line("Cgroup Version", format!("{}{hybrid}", i.cgroup_version));
    line("Security Options", security(i).join(" "));
    line("Rootless", i.rootless.to_string());
    line("Kernel Version", i.facts.kernel.clone());
    line("Operating System", i.operating_system.clone());
    line("Architecture", i.machine.clone());
    line("CPUs", i.facts.cpus.to_string());
    line("Total Memory", human_memory(i.memory));
    line("Name", i.hostname.clone());
    line("Root Dir", i.root.display().to_string());
    line("Run Root", i.runroot.display().to_string());
    out
}
