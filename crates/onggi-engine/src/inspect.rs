//! `inspect`: Docker's JSON of a container or an image, from what is stored and what the kernel says.

mod config;
mod host_config;

use onggi_spec::{
    monitor::{ExitRecord, RootFs},
    oci::runtime::Spec,
    port::PortMapping,
    security::AppArmorChoice,
};
use onggi_state::ContainerRecord;
use serde_json::{Map, Value, json};

use crate::{Engine, EngineError, Status, create, json as files};

/// A time that has not come, as Go writes it.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// A container, or an image when no container answers to the name.
    ///
    /// # Errors
    /// Neither exists.
    pub fn inspect(&self, name: &str) -> Result<Value, EngineError> {
        self.recover()?;
        match self.find(name) {
            Ok(record) => self.inspect_container(&record),
            Err(e) if e.is_no_such_container() => {
                self.inspect_image(&self.find_image(name).map_err(EngineError::or_container)?)
            }
            Err(e) => self.find_image(name).map_or(Err(e), |image| self.inspect_image(&image)),
        }
    }

    /// Whether a name or id means a container.
    ///
    /// # Errors
    /// It is the beginning of several ids, or the state cannot be read.
    pub fn container_exists(&self, name: &str) -> Result<bool, EngineError> {
        self.recover()?;
        match self.find(name) {
            Ok(_) => Ok(true),
            Err(e) if e.is_no_such_container() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// A container.
    ///
    /// # Errors
    /// It does not exist.
    pub fn inspect_container_named(&self, name: &str) -> Result<Value, EngineError> {
        self.recover()?;
        self.inspect_container(&self.find(name)?)
    }

    /// An image.
    ///
    /// # Errors
    /// It does not exist.
    pub fn inspect_image_named(&self, name: &str) -> Result<Value, EngineError> {
        self.inspect_image(&self.find_image(name)?)
    }

    fn inspect_container(&self, r: &ContainerRecord) -> Result<Value, EngineError> {
        let status = self.status(&r.id)?;
        let bundle = self.paths.bundle(&r.id);
        let spec: Option<Spec> = files::read_optional(&bundle.join("config.json"))?;
        // An image that was removed by force leaves its containers as they are.
        let image = self.image_config(r).ok().flatten();
        let last = match &status {
            Status::Exited(exit) => Some(exit.clone()),
            _ => None,
        };
        Ok(json!({
            "Id": r.id.as_str(),
            "Created": rfc3339(r.created_at),
            "Path": r.command.first().cloned().unwrap_or_default(),
            "Args": r.command.get(1..).unwrap_or_default(),
            "State": state(&status, last.as_ref()),
            "Image": r.image_id.as_ref().map_or_else(String::new, ToString::to_string),
            "ResolvConfPath": bundle.join("resolv.conf"),
            "HostnamePath": bundle.join("hostname"),
            "HostsPath": bundle.join("hosts"),
            "LogPath": self.paths.log_file(&r.id),
            "Name": format!("/{}", r.name),
            "RestartCount": 0,
            "Driver": self.driver_kind()?.name(),
            "ExecIDs": [],
            "Platform": "linux",
            "AppArmorProfile": apparmor_profile(r, spec.as_ref()),
            "HostConfig": host_config::of(r, self.facts()),
            "GraphDriver": self.graph_driver(r, &status)?,
            "Mounts": mounts(r),
            "Config": config::of(r, image.as_ref(), spec.as_ref(), self.facts()),
            "NetworkSettings": self.network_settings(r, &status)?,
        }))
    }

    /// Docker's names. The overlay is mounted in the container's own mount namespace alone: there is a merged directory
    /// while it runs, and it is the root directory of its first process.
    fn graph_driver(&self, r: &ContainerRecord, status: &Status) -> Result<Value, EngineError> {
        let rootfs: Option<RootFs> = files::read_optional(&self.paths.bundle(&r.id).join("rootfs.json"))?;
        let mut data = Map::new();
        if let Some(RootFs::Overlay(overlay)) = &rootfs {
            let lower: Vec<String> = overlay.lower.iter().map(|dir| dir.display().to_string()).collect();
            data.insert("LowerDir".to_owned(), lower.join(":").into());
            data.insert("UpperDir".to_owned(), json!(overlay.upper));
            data.insert("WorkDir".to_owned(), json!(overlay.work));
        }
        if let Status::Running { pid, .. } = status {
            data.insert("MergedDir".to_owned(), format!("/proc/{pid}/root").into());
        }
        let name = match rootfs {
            Some(RootFs::Path) => self.driver_kind()?.name(),
            _ => "overlay",
        };
        Ok(json!({ "Name": name, "Data": data }))
    }

    fn network_settings(&self, r: &ContainerRecord, status: &Status) -> Result<Value, EngineError> {
        let network = if status.is_running() { self.network_record(&r.id)? } else { None };
        let ports = match &network {
            Some(n) => port_map(&n.port_mappings()),
            None => json!({}),
        };
        let (ip, mac, gateway, prefix) = match &network {
            Some(n) => (n.ip.to_string(), n.mac.to_string(), n.gateway.to_string(), n.subnet.prefix()),
            None => (String::new(), String::new(), String::new(), 0),
        };
        let endpoint = json!({ "IPAddress": ip, "IPPrefixLen": prefix, "Gateway": gateway, "MacAddress": mac });
        let mut networks = Map::new();
        networks.insert(r.request.network.name().to_owned(), endpoint);
        Ok(json!({
            "IPAddress": ip, "IPPrefixLen": prefix, "Gateway": gateway, "MacAddress": mac,
            "SandboxKey": sandbox_key(status), "Ports": ports, "Networks": networks,
        }))
    }
}

/// A path to the network namespace: it is no file of ours but that of the first process.
fn sandbox_key(status: &Status) -> String {
    match status {
        Status::Running { pid, .. } => format!("/proc/{pid}/ns/net"),
        Status::Created | Status::Exited(_) => String::new(),
    }
}

fn state(status: &Status, last: Option<&ExitRecord>) -> Value {
    let (pid, started) = match status {
        Status::Running { pid, started_at, .. } => (*pid, rfc3339(*started_at)),
        _ => (0, last.map_or_else(|| ZERO_TIME.to_owned(), |e| rfc3339(e.started_at))),
    };
    json!({
        "Status": status.name(),
        "Running": status.is_running(),
        "Paused": status.is_paused(),
        "Restarting": false,
        "OOMKilled": last.is_some_and(|e| e.oom_killed),
        "Dead": false,
        "Health": null,
        "Pid": pid,
        "ExitCode": last.map_or(0, |e| e.exit_code),
        "Error": last.map_or("", |e| e.error.as_str()),
        "StartedAt": started,
        "FinishedAt": last.map_or_else(|| ZERO_TIME.to_owned(), |e| rfc3339(e.finished_at)),
    })
}

/// The profile of the last start; before the first one, what was asked for.
fn apparmor_profile(r: &ContainerRecord, spec: Option<&Spec>) -> String {
    let started = spec.and_then(|s| s.process.as_ref()).map(|p| p.apparmor_profile.clone().unwrap_or_default());
    match (&r.request.security.apparmor, started) {
        (AppArmorChoice::Unconfined, _) => "unconfined".to_owned(),
        (_, Some(profile)) => profile,
        (AppArmorChoice::Profile(name), None) => name.clone(),
        (AppArmorChoice::Default, None) => String::new(),
    }
}

fn mounts(r: &ContainerRecord) -> Vec<Value> {
    let one = |m: &onggi_spec::mount::MountSpec| {
        json!({
            "Type": "bind", "Source": m.source, "Destination": m.target,
            "Mode": if m.read_only { "ro" } else { "" }, "RW": !m.read_only, "Propagation": m.propagation,
        })
    };
    // As with Docker, `--tmpfs` alone is not among them: HostConfig has it.
    r.request.mounts.iter().map(one).collect()
}

/// `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}`
fn port_map(ports: &[PortMapping]) -> Value {
    let mut map: Map<String, Value> = Map::new();
    for p in ports {
        let key = format!("{}/{}", p.container_port, p.protocol);
        let host = json!({ "HostIp": p.host_ip.to_string(), "HostPort": p.host_port.map_or_else(String::new, |h| h.to_string()) });
        match map.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(list) => list.push(host),
            _ => unreachable!("only arrays are inserted"),
        }
    }
    Value::Object(map)
}

pub(crate) fn rfc3339(unix_ns: i64) -> String {
    create::timestamp(unix_ns)
}
