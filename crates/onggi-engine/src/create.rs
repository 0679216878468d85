//! Makes a container: resolves its image, reserves id and name, lays out its disk. Nothing runs yet.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    time::SystemTime,
};

use onggi_spec::{
    ContainerRequest, ImageSource, NetworkMode, UserNamespace,
    image::{ImageConfig, Platform},
    oci::build,
    port::{PortMapping, parse_exposed},
    progress::{Progress, ProgressEvent},
};
use onggi_state::{ContainerRecord, ImageRecord, StateError, files::Intent};

use onggi_storage::DriverKind;

use crate::{Engine, EngineError, PullOptions, apparmor, failpoint, json, names};

/// What a container is made from.
#[derive(Debug)]
pub(crate) struct Source {
    /// The image, unless `host:` or `rootfs:`.
    pub(crate) image: Option<(ImageRecord, ImageConfig)>,
    /// As the user wrote it.
    pub(crate) name: String,
}

/// Docker's words for an image of another platform, which an emulator may still run (binfmt_misc).
fn foreign(image: &Platform) -> Option<String> {
    let host = onggi_image::native_platform();
    // Empty fields of old images claim nothing.
    let same = |a: &str, b: &str| a.is_empty() || a == b;
    let ours = same(&image.architecture, &host.architecture) && same(&image.os, &host.os);
    (!ours).then(|| {
        format!(
            "The requested image's platform ({image}) does not match the detected host platform ({host}) and no specific \
             platform was requested"
        )
    })
}

impl Engine {
    /// Makes a container without starting it.
    ///
    /// # Errors
    /// As [`Engine::run`], but for what concerns the start.
    pub fn create(
        &self,
        request: &ContainerRequest,
        pull: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<ContainerRecord, EngineError> {
        self.recover()?;
        let source = self.resolve_source(request, pull, progress)?;
        let (record, intent) = self.create_from(request, &source)?;
        intent.complete()?;
        Ok(record)
    }

    /// Finds or pulls the image.
    pub(crate) fn resolve_source(
        &self,
        request: &ContainerRequest,
        pull: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Source, EngineError> {
        self.check_host(request)?;
        match &request.image {
            ImageSource::Image(reference) => {
                let image = self.find_or_pull(reference, pull, progress)?;
                let config = self.stored_config(&image.config_digest)?;
                if let Some(text) = foreign(&config.platform()).filter(|_| pull.platform.is_none()) {
                    progress.event(ProgressEvent::Warning { text });
                }
                Ok(Source { image: Some((image, config)), name: source_name(&request.image) })
            }
            ImageSource::Rootfs(dir) => {
                let failed = |source| EngineError::Rootfs { path: dir.clone(), source };
                if !fs::metadata(dir).map_err(failed)?.is_dir() {
                    return Err(failed(std::io::ErrorKind::NotADirectory.into()));
                }
                Ok(Source { image: None, name: source_name(&request.image) })
            }
            ImageSource::Host => Ok(Source { image: None, name: source_name(&request.image) }),
        }
    }

    /// What can be refused before anything is pulled or made.
    fn check_host(&self, request: &ContainerRequest) -> Result<(), EngineError> {
        let facts = self.facts();
        let unsupported = |what: &str, reason: &str, hint: &str| {
            Err(EngineError::Unsupported { what: what.into(), reason: reason.into(), hint: hint.into() })
        };
        if !facts.overlay {
            return unsupported(
                "a container's root filesystem",
                "this kernel has no overlay filesystem",
                "load the module with `modprobe overlay`, or use a kernel built with CONFIG_OVERLAY_FS",
            );
        }
        if request.userns == UserNamespace::Auto && !facts.user_namespaces {
            return unsupported(
                "--userns auto",
                "this host does not allow user namespaces",
                "leave --userns out, or raise user.max_user_namespaces",
            );
        }
        let keeps_trees = self.driver_kind()? != DriverKind::Overlay && matches!(request.image, ImageSource::Image(_));
        if request.userns == UserNamespace::Auto && keeps_trees {
            return unsupported(
                "--userns auto",
                "only the storage driver overlay maps the owners of an image's files",
                "leave --userns out, or use a store with the driver overlay",
            );
        }
        if !self.rootful() && !facts.user_namespaces {
            return unsupported(
                "a container without root",
                "this host does not allow user namespaces",
                "run as root, or ask the administrator to raise user.max_user_namespaces",
            );
        }
        if !self.rootful() && request.network == NetworkMode::Bridge && !request.ports.is_empty() {
            return unsupported("-p without root", "a bridge needs root", "run as root, or use --network host");
        }
        apparmor::plan(request, facts).map(drop)
    }

    /// Reserves id and name and lays out the disk. The intent is held until the caller completes it.
    pub(crate) fn create_from(
        &self,
        request: &ContainerRequest,
        source: &Source,
    ) -> Result<(ContainerRecord, Intent), EngineError> {
        let id = names::random_id()?;
        let intent = self.intents()?.wait(id.as_str())?;
        failpoint::hit("create.intent");
        let made = self.reserve(id.clone(), request, source).and_then(|record| {
            failpoint::hit("create.recorded");
            self.lay_out(&record)?;
            Ok(record)
        });
        match made {
            Ok(record) => {
                failpoint::hit("create.done");
                Ok((record, intent))
            }
            Err(e) => {
                // What cannot be taken back now is by whoever finds the intent; the first error is the cause.
                if self.erase(&id).is_ok() {
                    intent.complete()?;
                }
                Err(e)
            }
        }
    }

    fn reserve(
        &self,
        id: onggi_spec::ContainerId,
        request: &ContainerRequest,
        source: &Source,
    ) -> Result<ContainerRecord, EngineError> {
        let image = source.image.as_ref();
        let mut record = ContainerRecord {
            id,
            name: match &request.name {
                Some(name) => name.clone(),
                None => names::random_name(0)?,
            },
            created_at: now(),
            request: self.normalise(request, image.map(|(_, c)| c)),
            image_id: image.map(|(r, _)| r.config_digest.clone()),
            image_name: source.name.clone(),
            chain_ids: image.map(|(r, _)| r.chain_ids.clone()).unwrap_or_default(),
            command: build::effective_command(request, image.map(|(_, c)| c)).map_err(EngineError::Build)?,
        };
        let mut attempt = 0;
        loop {
            let inserted = self.state()?.insert_container(&record);
            match inserted {
                Err(StateError::NameTaken { .. }) if request.name.is_none() => {
                    attempt += 1;
                    record.name = names::random_name(attempt)?;
                }
                other => return Ok(other.map(|()| record)?),
            }
        }
    }

    /// Without root there is no bridge: the container gets a network of its own with loopback only.
    /// The image's labels are the container's too, unless the request has its own.
    fn normalise(&self, request: &ContainerRequest, image: Option<&ImageConfig>) -> ContainerRequest {
        let mut request = request.clone();
        for (key, value) in image.iter().flat_map(|c| &c.config.labels) {
            request.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        publish_named(&mut request, image);
        if !self.rootful() && request.network == NetworkMode::Bridge {
            request.network = NetworkMode::None;
        }
        request
    }

    /// The bundle directory, the snapshot and, last, `rootfs.json`: its presence means "complete".
    fn lay_out(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        let bundle = self.paths.bundle(&record.id);
        let made = fs::DirBuilder::new().mode(0o700).create(&bundle);
        made.map_err(|source| EngineError::MakeDir { path: bundle.clone(), source })?;
        let rootfs = self.snapshot(record)?;
        failpoint::hit("create.snapshot");
        json::write(&bundle.join("rootfs.json"), &rootfs)
    }

    /// True once per boot: what the host does not allow is said once, not at every start.
    fn first_since_boot(&self) -> bool {
        let marker = self.paths.runroot.join("noted");
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(marker).is_ok()
    }

    /// One line for each thing that the host does not allow and that is kept as it is.
    pub(crate) fn notes(&self, request: &ContainerRequest) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.rootful() && request.network == NetworkMode::Bridge {
            notes.push("without root there is no bridge network: the container has only its own loopback".to_owned());
        }
        if request.network != NetworkMode::Bridge && !request.ports.is_empty() {
            notes.push(format!("published ports have no effect with --network {}", request.network.name()));
        }
        if self.first_since_boot() {
            notes.extend(build::notes(self.facts()));
            notes.extend(apparmor::prepare(request, self.facts()).ok().and_then(|confinement| confinement.note));
        }
        notes
    }
}

/// `-P`: each port that the image or `--expose` names and `-p` does not gets a free port of the host.
fn publish_named(request: &mut ContainerRequest, image: Option<&ImageConfig>) {
    if !request.publish_all {
        return;
    }
    let of_image = image.into_iter().flat_map(|c| c.config.exposed_ports.keys());
    // What an image says is data: a port that means nothing is none (I8).
    let mut named: Vec<_> = of_image.chain(&request.expose).filter_map(|port| parse_exposed(port).ok()).collect();
    named.sort_unstable();
    named.dedup();
    for (container_port, protocol) in named {
        if !request.ports.iter().any(|p| (p.container_port, p.protocol) == (container_port, protocol)) {
            request.ports.push(PortMapping {
                host_ip: Ipv4Addr::UNSPECIFIED,
                host_port: None,
                container_port,
                protocol,
            });
        }
    }
}

/// A source as people write it; `latest` goes without saying.
pub(crate) fn source_name(source: &ImageSource) -> String {
    match source {
        ImageSource::Image(reference) => {
            let text = reference.familiar();
            text.strip_suffix(":latest").map(str::to_owned).unwrap_or(text)
        }
        ImageSource::Rootfs(dir) => format!("rootfs:{}", dir.display()),
        ImageSource::Host => "host:".to_owned(),
    }
}

/// Unix time in nanoseconds.
pub(crate) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

/// RFC 3339 with nanoseconds in UTC.
pub(crate) fn timestamp(unix_ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).map_or_else(|_| String::new(), |t| format!("{t:.9}"))
}
