//! `--explain`: the whole plan of a `run` without doing any of it, in words, as JSON, or as a shell script.
//!
//! Nothing is made: not even the container's directory. Without root the plan is the one that this user would
//! get, unless it publishes ports, which only root can: then it is root's plan, and says so.

use std::{fmt::Write, fs::File, io, os::fd::OwnedFd, path::Path};

use onggi_network::{NetworkPlan, Obstacle, PortFact, PublishedPort};
use onggi_spec::{
    ContainerRequest, HostFacts, ImageSource, NetworkMode,
    image::ImageConfig,
    monitor::{OverlayMount, RootFs, SubOverlay},
    oci::build::{GeneratedFiles, SpecInput, build_oci_spec, effective_command},
    port::PortMapping,
    shell::quote,
    user::ResolvedUser,
};
use onggi_state::ContainerRecord;
use onggi_sys::process::wait_pidfd;
use serde_json::{Value, json};

use crate::{
    Engine, EngineError, apparmor, create, devices,
    launch::read_bounded_to,
    names,
    process::{self, Session},
    rootfs, start,
};

/// Longest plan; a configuration with every feature has some hundred operations.
const MAX_PLAN: u64 = 16 * 1024 * 1024;

/// Ends the script of the sandbox inside the script of the whole.
const SANDBOX_END: &str = "END_OF_SANDBOX";

/// A plan that was not carried out.
#[derive(Debug)]
pub struct Explanation {
    record: ContainerRecord,
    notes: Vec<String>,
    storage: Vec<String>,
    rootfs: OverlayMount,
    network: Option<NetworkPlan>,
    /// Name and text of each.
    etc: [(&'static str, String); 3],
    sandbox: SandboxTexts,
    /// The container exists: what the script finds there, it leaves there.
    keeps: bool,
}

/// The sandbox's part, as `onggi-oci plan` rendered it.
#[derive(Debug)]
struct SandboxTexts {
    words: String,
    json: Value,
    shell: String,
}

impl Engine {
    /// Plans a `run` and describes it.
    ///
    /// # Errors
    /// The request is impossible on this host.
    pub fn explain(&self, request: &ContainerRequest) -> Result<Explanation, EngineError> {
        let (facts, mut notes) = self.explained_facts(request);
        let (image, config) = self.explained_image(request, &mut notes)?;
        let mut request = request.clone();
        if !facts.rootful() && request.network == NetworkMode::Bridge {
            request.network = NetworkMode::None;
            notes.push("without root there is no bridge network: only loopback".to_owned());
        }
        let record = ContainerRecord {
            id: names::random_id()?,
            name: request.name.clone().map_or_else(|| names::random_name(0), Ok)?,
            created_at: create::now(),
            image_id: image.as_ref().map(|i| i.config_digest.clone()),
            image_name: create::source_name(&request.image),
            chain_ids: image.map(|i| i.chain_ids).unwrap_or_default(),
            command: effective_command(&request, config.as_ref()).map_err(EngineError::Build)?,
            request,
        };
        self.explained(record, &facts, notes, config.as_ref())
    }

    /// Plans the start of a container that exists.
    ///
    /// # Errors
    /// Its request is impossible on this host.
    pub(crate) fn explain_existing(&self, record: &ContainerRecord) -> Result<Explanation, EngineError> {
        let (facts, notes) = self.explained_facts(&record.request);
        let config = self.image_config(record)?;
        let mut explanation = self.explained(record.clone(), &facts, notes, config.as_ref())?;
        let upper = explanation.rootfs.upper.display();
        explanation.storage = vec![
            format!("use the writable layer {upper} as it is"),
            "write hosts, hostname, resolv.conf, config.json and onggi.json".to_owned(),
        ];
        explanation.keeps = true;
        Ok(explanation)
    }

    fn explained(
        &self,
        record: ContainerRecord,
        facts: &HostFacts,
        notes: Vec<String>,
        config: Option<&ImageConfig>,
    ) -> Result<Explanation, EngineError> {
        let rootfs = self.explained_rootfs(&record, facts);
        let network = match record.request.network {
            NetworkMode::Bridge => Some(self.explained_network(&record)?),
            NetworkMode::None | NetworkMode::Host => None,
        };
        let user = self.explained_user(&record, &rootfs, config)?;
        let sandbox = self.explained_sandbox(&record, facts, &rootfs, config, user)?;
        let storage = storage_words(&record, &rootfs, self.keeps_trees(&record)?);
        let etc = etc_files(&record, facts, network.as_ref());
        Ok(Explanation { record, notes, storage, rootfs, network, etc, sandbox, keeps: false })
    }

    /// The facts to plan with: this user's, or root's when only root can do what is asked.
    fn explained_facts(&self, request: &ContainerRequest) -> (HostFacts, Vec<String>) {
        let mut facts = self.facts().clone();
        let mut notes = Vec::new();
        if !facts.rootful() && !request.ports.is_empty() {
            (facts.euid, facts.egid, facts.effective_caps) = (0, 0, u64::MAX >> 23);
            notes.push("this is the plan for root: publishing ports is not possible without".to_owned());
        }
        (facts, notes)
    }

    fn explained_image(
        &self,
        request: &ContainerRequest,
        notes: &mut Vec<String>,
    ) -> Result<(Option<onggi_state::ImageRecord>, Option<ImageConfig>), EngineError> {
        let ImageSource::Image(reference) = &request.image else { return Ok((None, None)) };
        // A store that does not exist yet is not made to look into it.
        let stored =
            if self.paths.root.join("state.db").exists() { self.find_image(&reference.to_string()).ok() } else { None };
        match stored {
            Some(image) => {
                let config = self.stored_config(&image.config_digest)?;
                Ok((Some(image), Some(config)))
            }
            None => {
                notes.push(format!(
                    "{} is not in the store: it would be pulled first, and its settings are not known yet",
                    reference.familiar()
                ));
                Ok((None, None))
            }
        }
    }

    fn explained_rootfs(&self, record: &ContainerRecord, facts: &HostFacts) -> OverlayMount {
        let bundle = self.paths.bundle(&record.id);
        let mut mount = OverlayMount {
            lower: Vec::new(),
            upper: bundle.join("upper"),
            work: bundle.join("work"),
            userxattr: !facts.rootful(),
            volatile: record.request.remove,
            submounts: Vec::new(),
            hidden: Vec::new(),
        };
        match &record.request.image {
            ImageSource::Image(_) => {
                let layer = |c: &onggi_spec::Digest| self.paths.root.join("layers").join(c.hex()).join("diff");
                mount.lower = record.chain_ids.iter().rev().map(layer).collect();
            }
            ImageSource::Rootfs(dir) => mount.lower = vec![dir.clone()],
            ImageSource::Host => {
                mount.lower = vec!["/".into()];
                let sub = |(n, s): (usize, &onggi_spec::facts::Submount)| {
                    let base = bundle.join("sub").join(n.to_string());
                    SubOverlay { path: (&s.path).into(), upper: base.join("upper"), work: base.join("work") }
                };
                mount.submounts = facts.submounts.iter().enumerate().map(sub).collect();
                mount.hidden = vec![self.paths.root.clone(), self.paths.runroot.clone()];
            }
        }
        mount
    }

    /// The container would get a directory of its own instead of an overlay.
    fn keeps_trees(&self, record: &ContainerRecord) -> Result<bool, EngineError> {
        let image = matches!(record.request.image, ImageSource::Image(_));
        Ok(image && self.driver_kind()? != onggi_storage::DriverKind::Overlay)
    }

    fn explained_network(&self, record: &ContainerRecord) -> Result<NetworkPlan, EngineError> {
        let request = start::network_request(record, self.probable_id_block(record));
        let mut facts = onggi_network::facts(&self.paths.runroot, &request)?;
        if !self.rootful() {
            facts.ports.iter_mut().for_each(allow_for_root);
        }
        if self.process(record)?.is_some() {
            // A restart frees its ports before it takes them again.
            facts.ports.iter_mut().for_each(allow_for_its_holder);
        }
        onggi_network::plan_bridge(&request, &facts)
            .map_err(|e| EngineError::Network(onggi_network::NetworkError::Plan(e)))
    }

    /// The user as far as it can be known: the layers of an image that is not stored cannot be asked.
    fn explained_user(
        &self,
        record: &ContainerRecord,
        rootfs: &OverlayMount,
        config: Option<&ImageConfig>,
    ) -> Result<ResolvedUser, EngineError> {
        if rootfs.lower.is_empty() {
            return Ok(ResolvedUser { uid: 0, gid: 0, additional_gids: Vec::new(), home: "/root".into() });
        }
        // The upper directory does not exist yet: the lower layers alone are asked.
        let mut lower = rootfs.clone();
        lower.upper = lower.lower[0].clone();
        lower.submounts.iter_mut().for_each(|s| s.upper.clone_from(&s.path));
        self.request_user(record, &lower, config)
    }

    fn explained_sandbox(
        &self,
        record: &ContainerRecord,
        facts: &HostFacts,
        rootfs: &OverlayMount,
        image: Option<&ImageConfig>,
        user: ResolvedUser,
    ) -> Result<SandboxTexts, EngineError> {
        let bundle = self.paths.bundle(&record.id);
        let netns = format!("/run/netns/{}", netns_name(record));
        let confinement = apparmor::plan(&record.request, facts)?;
        let input = SpecInput {
            request: &record.request,
            image,
            user,
            facts,
            id: &record.id,
            id_block: self.probable_id_block(record),
            netns_path: (record.request.network == NetworkMode::Bridge).then_some(netns.as_str()),
            cgroups_path: rootfs::cgroups_path(&record.id),
            apparmor_profile: confinement.profile.as_deref(),
            files: GeneratedFiles {
                hosts: bundle.join("hosts"),
                hostname: bundle.join("hostname"),
                resolv_conf: bundle.join("resolv.conf"),
            },
            device_sources: rootfs::device_sources(&record.request),
            block_devices: devices::limited(&record.request.resources)?,
            devices: devices::asked(&record.request, self.probable_id_block(record).is_some() || !facts.rootful())?,
        };
        let config = build_oci_spec(&input).map_err(EngineError::Build)?;
        let rootfs = match self.keeps_trees(record)? {
            true => RootFs::Path,
            false => RootFs::Overlay(rootfs.clone()),
        };
        let document =
            json!({ "config": config, "rootfs": rootfs, "cgroup_layout": facts.cgroup, "init": record.request.init });
        let json_text = self.render_sandbox(&document, "json")?;
        let json = serde_json::from_str(&json_text)
            .map_err(|source| EngineError::DamagedFile { path: "the plan of onggi-oci".into(), source })?;
        Ok(SandboxTexts {
            words: self.render_sandbox(&document, "words")?,
            json,
            shell: self.render_sandbox(&document, "sh")?,
        })
    }

    fn render_sandbox(&self, document: &Value, format: &str) -> Result<String, EngineError> {
        let input = self.memory_file(document)?;
        let ((out, out_write), (err, err_write)) = (process::pipe()?, process::pipe()?);
        let fds: Vec<(OwnedFd, i32)> = vec![(input, 0), (out_write, 1), (err_write, 2)];
        let args = vec!["plan".into(), "--format".into(), format.into()];
        let child = self.spawn_runtime(args, &fds, Session::Ours)?;
        drop(fds);
        let failed = |source| EngineError::ReadFile { path: "the plan of onggi-oci".into(), source };
        let text = read_bounded_to(File::from(out), MAX_PLAN).map_err(failed)?;
        let errors = read_bounded_to(File::from(err), MAX_PLAN).map_err(failed)?;
        let sys = |source| EngineError::Sys { op: "wait for onggi-oci plan".into(), source };
        let code = wait_pidfd(std::os::fd::AsFd::as_fd(&child.pidfd)).map_err(sys)?.code();
        if code != 0 {
            let message = String::from_utf8_lossy(&errors).trim().to_owned();
            return Err(EngineError::Runtime { verb: "plan", message, hint: String::new(), exit_code: 125 });
        }
        String::from_utf8(text).map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidData, e)))
    }
}

/// What only this user is refused is possible in root's plan.
fn allow_for_root(fact: &mut PortFact) {
    let PortMapping { host_ip, host_port, container_port, protocol } = fact.wanted;
    if let (Err(Obstacle::NotAllowed), Some(host_port)) = (&fact.found, host_port) {
        fact.found = Ok(PublishedPort { host_ip, host_port, container_port, protocol });
    }
}

/// What the container itself has now is free once it is stopped.
fn allow_for_its_holder(fact: &mut PortFact) {
    let PortMapping { host_ip, host_port, container_port, protocol } = fact.wanted;
    if let (Err(_), Some(host_port)) = (&fact.found, host_port) {
        fact.found = Ok(PublishedPort { host_ip, host_port, container_port, protocol });
    }
}

impl Explanation {
    /// The container's name.
    pub(crate) fn container(&self) -> &str {
        self.record.name.as_str()
    }

    /// What is to be known beside the plan.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What happens before anything is started.
    pub(crate) fn storage(&self) -> &[String] {
        &self.storage
    }

    /// One line per operation, in order, with a heading per part.
    pub fn words(&self) -> String {
        let mut out = String::new();
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        let _ = writeln!(out, "container {} ({})", self.record.name, self.record.id.short());
        section(&mut out, "storage", &self.storage.join("\n"));
        match &self.network {
            Some(plan) => section(&mut out, "network", &plan.words()),
            None => section(&mut out, "network", no_network(self.record.request.network)),
        }
        section(&mut out, "sandbox", &self.sandbox.words);
        section(
            &mut out,
            "monitor",
            "keep stdin, stdout and stderr; write container.log; record the exit; give everything back",
        );
        out
    }

    /// The operations as data.
    pub fn json(&self) -> Value {
        json!({
            "container": { "id": self.record.id, "name": self.record.name, "command": self.record.command },
            "notes": self.notes,
            "storage": { "steps": self.storage, "rootfs": self.rootfs },
            "network": self.network,
            "sandbox": self.sandbox.json,
        })
    }

    /// A script for `sh` that builds the same container by hand with util-linux, iproute2 and nft.
    pub fn shell(&self) -> String {
        let mut out = String::from("#!/bin/sh\n# Builds by hand what `onggi run` would build.\nset -eu\n\n");
        for note in &self.notes {
            let _ = writeln!(out, "# note: {note}");
        }
        let _ = writeln!(out, "# storage: the writable layer and the files of /etc");
        let dirs: Vec<&Path> = [&*self.rootfs.upper, &*self.rootfs.work]
            .into_iter()
            .chain(self.rootfs.submounts.iter().flat_map(|s| [&*s.upper, &*s.work]))
            .collect();
        let dirs: Vec<String> = dirs.iter().map(|d| quote(&d.display().to_string())).collect();
        let _ = writeln!(out, "mkdir -p {}", dirs.join(" "));
        let bundle = self.rootfs.upper.parent().unwrap_or(Path::new("/"));
        let mode_of = self.rootfs.lower.first().map_or_else(|| "/".to_owned(), |l| l.display().to_string());
        let _ =
            writeln!(out, "chmod --reference={} {}", quote(&mode_of), quote(&self.rootfs.upper.display().to_string()));
        for (name, text) in &self.etc {
            let _ = writeln!(out, "printf %s {} > {}", quote(text), quote(&bundle.join(name).display().to_string()));
        }
        if let Some(plan) = &self.network {
            let _ = write!(out, "\n# network\nNETNS={}\n{}", netns_name(&self.record), plan.shell());
        }
        // A shell of its own, whose exec does not end this one; its script is on a descriptor, not on stdin.
        let _ =
            write!(out, "\n# sandbox\nstatus=0\n/bin/sh -eu /dev/fd/8 8<<'{SANDBOX_END}' || status=$?\nexec 8<&-\n");
        let _ = writeln!(out, "{}\n{SANDBOX_END}", self.sandbox.shell.trim_end());
        let _ = writeln!(out, "\n# clean up\n{}exit $status", self.shell_clean_up());
        out
    }

    /// What the script has made and would leave behind.
    fn shell_clean_up(&self) -> String {
        let mut out = String::new();
        let dirs = self.sandbox.json["cgroup"]["dirs"].as_array();
        for dir in dirs.into_iter().flatten().filter_map(|d| d["path"].as_str()) {
            let _ = writeln!(out, "rmdir {} 2>/dev/null || true", quote(dir));
        }
        if let Some(network) = self.network.as_ref().and_then(|n| n.record.as_ref()) {
            for port in &network.ports {
                let (set, key) = match port.host_ip.is_unspecified() {
                    true => ("published_any", format!("{} . {}", port.protocol, port.host_port)),
                    false => ("published", format!("{} . {} . {}", port.host_ip, port.protocol, port.host_port)),
                };
                let _ = writeln!(out, "nft delete element ip onggi {set} '{{ {key} }}' || true");
            }
            let _ = writeln!(out, "ip netns del \"$NETNS\" || true");
            let _ = writeln!(out, "[ -z \"${{NETNS_DIR-}}\" ] || umount {} || true", onggi_network::NAMED_NAMESPACES);
        }
        if let Some(bundle) = self.rootfs.upper.parent().filter(|_| !self.keeps) {
            let _ = writeln!(out, "rm -rf {}", quote(&bundle.display().to_string()));
        }
        out
    }
}

/// The files of `/etc` that would be written.
fn etc_files(
    record: &ContainerRecord,
    facts: &HostFacts,
    network: Option<&NetworkPlan>,
) -> [(&'static str, String); 3] {
    let network = network.and_then(|n| n.record.as_ref());
    [
        ("hosts", rootfs::hosts_text(record, facts, network)),
        ("hostname", format!("{}\n", rootfs::hostname(record, facts))),
        ("resolv.conf", rootfs::resolv_text(record, facts)),
    ]
}

fn section(out: &mut String, title: &str, text: &str) {
    let _ = writeln!(out, "\n{title}");
    for line in text.lines() {
        let _ = writeln!(out, "  {line}");
    }
}

fn no_network(mode: NetworkMode) -> &'static str {
    match mode {
        NetworkMode::Host => "share the host's network namespace",
        _ => "a network namespace of its own with nothing but loopback",
    }
}

fn netns_name(record: &ContainerRecord) -> String {
    format!("onggi-{}", record.id.short())
}

fn storage_words(record: &ContainerRecord, rootfs: &OverlayMount, whole: bool) -> Vec<String> {
    let mut lines = vec![format!("reserve the name {} and the id {} in the database", record.name, record.id.short())];
    match &record.request.image {
        ImageSource::Image(_) => {
            lines.push(format!("use the {} layers of {}", record.chain_ids.len(), record.image_name))
        }
        ImageSource::Rootfs(dir) => lines.push(format!("use the directory {} as the lower layer", dir.display())),
        ImageSource::Host => lines.push("use this machine's own root filesystem as the lower layer".to_owned()),
    }
    match whole {
        true => lines
            .push(format!("make a copy of the image's tree as {}", rootfs.upper.with_file_name("rootfs").display())),
        false => lines.push(format!("make the writable layer {}", rootfs.upper.display())),
    }
    lines.extend(
        rootfs.submounts.iter().map(|s| format!("make a writable layer over the submount {}", s.path.display())),
    );
    lines.push("write hosts, hostname, resolv.conf, config.json and onggi.json".to_owned());
    lines
}
