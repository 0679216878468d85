//! `--network container:NAME`: a container in the network namespace of another, with its names.
//!
//! The other one must run when this one starts. The namespace stays as long as one of them does, its link and its address
//! as long as the other one: who stays behind is cut off.

use std::{fs, fs::File, os::fd::OwnedFd};

use onggi_spec::{ContainerRequest, NetworkMode};
use onggi_state::ContainerRecord;

use crate::{Engine, EngineError, paths::Paths, rootfs};

/// Files that both have with the same content.
const SHARED: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

impl Engine {
    /// The request with the other container's id and host name instead of what was typed.
    ///
    /// # Errors
    /// There is no such container, or an option would change the other one's network.
    pub(crate) fn joined_request(&self, request: &ContainerRequest) -> Result<ContainerRequest, EngineError> {
        let mut request = request.clone();
        if request.network != NetworkMode::Container {
            return Ok(request);
        }
        let refused = |what: &str, reason: &str, hint: &str| {
            Err(EngineError::Unsupported { what: what.into(), reason: reason.into(), hint: hint.into() })
        };
        if !self.rootful() {
            return refused(
                "--network container:NAME",
                "without root the other container's network belongs to another user namespace",
                "run as root, or start the second program with `onggi exec`",
            );
        }
        let own = [
            ("-p", !request.ports.is_empty() || request.publish_all),
            ("--expose", !request.expose.is_empty()),
            ("--hostname", request.hostname.is_some()),
            ("--domainname", request.domainname.is_some()),
            ("--add-host", !request.extra_hosts.is_empty()),
            ("--dns", request.dns != Default::default()),
        ];
        if let Some((option, _)) = own.iter().find(|(_, asked)| *asked) {
            let reason = "conflicting options: network, ports and names are the other container's";
            return refused(option, reason, "give it to the container whose network is shared");
        }
        let other = self.find(request.network_of.as_deref().unwrap_or_default())?;
        request.hostname = Some(rootfs::hostname(&other, self.facts()));
        request.network_of = Some(other.id.to_string());
        Ok(request)
    }

    /// The container whose network this one shares.
    pub(crate) fn network_owner(&self, record: &ContainerRecord) -> Result<Option<ContainerRecord>, EngineError> {
        match (record.request.network, &record.request.network_of) {
            (NetworkMode::Container, Some(id)) => self.find(id).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether any container shares another one's network, through however many others; true where it cannot be told.
    pub(crate) fn networks_are_shared(&self) -> bool {
        let all = self.state().and_then(|state| Ok(state.list_containers()?));
        all.map_or(true, |all| all.iter().any(|record| record.request.network == NetworkMode::Container))
    }

    /// The network namespace of the other container, while it runs.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn joined_namespace(&self, other: &ContainerRecord) -> Result<OwnedFd, EngineError> {
        let stopped = || {
            let (name, hint) = (other.name.to_string(), "start it first: onggi start NAME");
            EngineError::WrongState { verb: "join the network of", name, state: "not running", hint }
        };
        let (process, state) = self.living(other)?.ok_or_else(stopped)?;
        let path = format!("/proc/{}/ns/net", state.pid);
        let file = File::open(&path).map_err(|_| stopped())?;
        // Checked after opening: the number meant this process and no other.
        match process.ended_before(std::time::Instant::now())? {
            true => Err(stopped()),
            false => Ok(file.into()),
        }
    }
}

/// Texts of the shared files of /etc, as the other container has them now.
pub(crate) fn shared_files(paths: &Paths, other: &ContainerRecord) -> Result<[(&'static str, String); 3], EngineError> {
    let bundle = paths.bundle(&other.id);
    let read = |name| {
        let path = bundle.join(name);
        fs::read_to_string(&path).map_err(|source| EngineError::ReadFile { path, source })
    };
    let [a, b, c] = SHARED;
    Ok([(a, read(a)?), (b, read(b)?), (c, read(c)?)])
}
