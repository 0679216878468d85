//! From a record to what the runtime needs: snapshot, user, files of `/etc`, `config.json`, `onggi.json`.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use onggi_network::NetworkRecord;
use onggi_spec::{
    ContainerId, ContainerRequest, HostFacts, IdBlock, ImageSource, NetworkMode,
    image::ImageConfig,
    monitor::{LogConfig, MonitorConfig, OverlayMount, RootFs},
    oci::{
        build::{GeneratedFiles, SpecInput, build_oci_spec, effective_hostname},
        runtime::{ConsoleSize, Spec},
    },
    user::{NameOrId, ResolvedUser, UserSpec},
};
use onggi_state::ContainerRecord;
use onggi_storage::HostMounts;

use crate::{Engine, EngineError, apparmor, devices, json};

/// A json-file log is rotated at this size …
const LOG_MAX_SIZE: u64 = 16 * 1024 * 1024;
/// … and this many files are kept: a container cannot fill a disk with its output (I12).
const LOG_MAX_FILES: u32 = 3;
/// What Docker falls back to when the host's only name servers are on its own loopback.
const FALLBACK_NAMESERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// The cgroup of a container, below each hierarchy's mount. Flat: no parent has to be made or removed.
pub(crate) fn cgroups_path(id: &ContainerId) -> String {
    format!("/onggi-{id}")
}

impl Engine {
    /// Makes the writable layer of a container.
    pub(crate) fn snapshot(&self, record: &ContainerRecord) -> Result<RootFs, EngineError> {
        let (root, id) = (&self.paths.root, &record.id);
        let mut rootfs = match &record.request.image {
            ImageSource::Image(_) => onggi_storage::snapshot(&self.layers()?, id, &record.chain_ids)?,
            ImageSource::Rootfs(dir) => RootFs::Overlay(onggi_storage::rootfs_snapshot(root, id, dir)?),
            ImageSource::Host => {
                let real: Vec<PathBuf> = self.facts().submounts.iter().map(|s| PathBuf::from(&s.path)).collect();
                let all: Vec<PathBuf> = self.facts().mount_points.iter().map(PathBuf::from).collect();
                let mounts = HostMounts { all: &all, real: &real };
                let hidden = std::slice::from_ref(&self.paths.runroot);
                RootFs::Overlay(onggi_storage::host_snapshot(root, id, mounts, hidden)?)
            }
        };
        if let RootFs::Overlay(overlay) = &mut rootfs {
            overlay.volatile = record.request.remove;
        }
        Ok(rootfs)
    }

    /// The root filesystem that a container was made with, if its files are still there.
    pub(crate) fn rootfs_of(&self, record: &ContainerRecord) -> Result<RootFs, EngineError> {
        let bundle = self.paths.bundle(&record.id);
        let gone = |path| EngineError::FilesGone { name: record.name.to_string(), path };
        let path = bundle.join("rootfs.json");
        let rootfs: RootFs = json::read_optional(&path)?.ok_or_else(|| gone(path))?;
        let upper = onggi_storage::driver::lookup_view(&rootfs, &bundle).upper;
        if upper.is_dir() { Ok(rootfs) } else { Err(gone(upper)) }
    }

    /// Writes everything that the monitor and the runtime read.
    pub(crate) fn write_bundle(
        &self,
        record: &ContainerRecord,
        network: Option<&NetworkRecord>,
        id_block: Option<IdBlock>,
        terminal_size: Option<(u16, u16)>,
    ) -> Result<(), EngineError> {
        let bundle = self.paths.bundle(&record.id);
        let rootfs = self.rootfs_of(record)?;
        self.write_etc_files(record, network)?;
        let mut spec = self.build_spec(record, &rootfs, id_block)?;
        if let (Some(process), Some((columns, rows))) = (&mut spec.process, terminal_size) {
            process.console_size = Some(ConsoleSize { height: rows.into(), width: columns.into() });
        }
        json::write(&bundle.join("config.json"), &spec)?;
        json::write(&bundle.join("onggi.json"), &self.monitor_config(record, rootfs)?)
    }

    /// The OCI configuration.
    pub(crate) fn build_spec(
        &self,
        record: &ContainerRecord,
        rootfs: &RootFs,
        id_block: Option<IdBlock>,
    ) -> Result<Spec, EngineError> {
        let config = self.image_config(record)?;
        let view = onggi_storage::driver::lookup_view(rootfs, &self.paths.bundle(&record.id));
        let user = self.request_user(record, &view, config.as_ref())?;
        let bundle = self.paths.bundle(&record.id);
        let files = GeneratedFiles {
            hosts: bundle.join("hosts"),
            hostname: bundle.join("hostname"),
            resolv_conf: bundle.join("resolv.conf"),
        };
        let confinement = apparmor::prepare(&record.request, self.facts())?;
        let input = SpecInput {
            request: &record.request,
            image: config.as_ref(),
            user,
            facts: self.facts(),
            id: &record.id,
            id_block,
            netns_path: None,
            cgroups_path: cgroups_path(&record.id),
            apparmor_profile: confinement.profile.as_deref(),
            files,
            device_sources: device_sources(&record.request),
            block_devices: devices::limited(&record.request.resources)?,
            devices: devices::asked(&record.request, id_block.is_some() || !self.rootful())?,
        };
        build_oci_spec(&input).map_err(EngineError::Build)
    }

    pub(crate) fn request_user(
        &self,
        record: &ContainerRecord,
        rootfs: &OverlayMount,
        config: Option<&ImageConfig>,
    ) -> Result<ResolvedUser, EngineError> {
        let from_image = config.map(|c| c.config.user.as_str()).filter(|u| !u.is_empty());
        let spec = match (&record.request.user, from_image) {
            (Some(user), _) => Some(user.clone()),
            (None, Some(text)) => {
                let parsed = text.parse::<UserSpec>();
                Some(
                    parsed
                        .map_err(|source| EngineError::ImageUser { user: text.chars().take(128).collect(), source })?,
                )
            }
            (None, None) => None,
        };
        self.resolve_user(rootfs, spec.as_ref(), &record.request.group_add)
    }

    /// What a user means in a root filesystem's own passwd and group files.
    pub(crate) fn resolve_user(
        &self,
        rootfs: &OverlayMount,
        user: Option<&UserSpec>,
        groups: &[NameOrId],
    ) -> Result<ResolvedUser, EngineError> {
        Ok(onggi_storage::resolve_user(rootfs, user, groups)?)
    }

    /// The configuration of a container's image, if it has one.
    pub(crate) fn image_config(&self, record: &ContainerRecord) -> Result<Option<ImageConfig>, EngineError> {
        record.image_id.as_ref().map(|id| self.stored_config(id)).transpose()
    }

    fn monitor_config(&self, record: &ContainerRecord, rootfs: RootFs) -> Result<MonitorConfig, EngineError> {
        let program = std::env::current_exe()
            .map_err(|source| EngineError::ReadFile { path: "/proc/self/exe".into(), source })?;
        let text = |p: &Path| p.display().to_string();
        let exit_command = vec![
            text(&program),
            "--root".into(),
            text(&self.paths.root),
            "--runroot".into(),
            text(&self.paths.runroot),
            "__cleanup".into(),
            record.id.to_string(),
        ];
        Ok(MonitorConfig {
            id: record.id.clone(),
            rootfs,
            log: LogConfig { path: self.paths.log_file(&record.id), max_size: LOG_MAX_SIZE, max_files: LOG_MAX_FILES },
            interactive: record.request.interactive,
            run_dir: self.paths.run_dir(&record.id),
            oci_root: self.paths.oci_root(),
            exit_file: self.paths.exit_file(&record.id),
            exit_command,
            init: record.request.init,
            disposable: record.request.remove,
        })
    }

    fn write_etc_files(&self, record: &ContainerRecord, network: Option<&NetworkRecord>) -> Result<(), EngineError> {
        let bundle = self.paths.bundle(&record.id);
        let facts = self.facts();
        write_public(&bundle.join("hosts"), &hosts_text(record, facts, network))?;
        write_public(&bundle.join("hostname"), &format!("{}\n", hostname(record, facts)))?;
        write_public(&bundle.join("resolv.conf"), &resolv_text(record, facts))
    }
}

/// The text of the container's /etc/resolv.conf.
pub(crate) fn resolv_text(record: &ContainerRecord, facts: &HostFacts) -> String {
    let request = &record.request;
    let host = match request.network {
        // Name servers that were asked for need no others.
        NetworkMode::Bridge if request.dns.servers.is_empty() => reachable_resolv_conf(&facts.resolv_conf),
        _ => facts.resolv_conf.clone(),
    };
    request.dns.apply(&host)
}

/// World-readable: it is bind-mounted into the container. Written in place, for a bind mount follows the inode.
fn write_public(path: &Path, text: &str) -> Result<(), EngineError> {
    let failed = |source| EngineError::WriteFile { path: path.to_owned(), source };
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path).map_err(failed)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o644)).map_err(|e| failed(e.into()))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)
}

/// Sources of mounts that are device files: who mounts /dev/null over a file wants that device.
pub(crate) fn device_sources(request: &ContainerRequest) -> Vec<String> {
    let is_device = |source: &&String| {
        fs::metadata(source).is_ok_and(|m| m.file_type().is_char_device() || m.file_type().is_block_device())
    };
    request.mounts.iter().map(|m| &m.source).filter(is_device).cloned().collect()
}

/// The host name inside the container.
pub(crate) fn hostname(record: &ContainerRecord, facts: &HostFacts) -> String {
    effective_hostname(&record.request, facts, &record.id)
}

/// The text of the container's /etc/hosts.
pub(crate) fn hosts_text(record: &ContainerRecord, facts: &HostFacts, network: Option<&NetworkRecord>) -> String {
    let request = &record.request;
    let own = || hosts_file(&hostname(record, facts), request.domainname.as_deref(), network.map(|n| n.ip));
    let mut text = match request.network {
        NetworkMode::Host => fs::read_to_string("/etc/hosts").unwrap_or_else(|_| own()),
        NetworkMode::Bridge | NetworkMode::None => own(),
    };
    let gateway = network.map_or(Ipv4Addr::LOCALHOST, |n| n.gateway);
    for host in &request.extra_hosts {
        let address = host.address.unwrap_or(gateway.into());
        text.push_str(&format!("{address}\t{}\n", host.name));
    }
    text
}

fn hosts_file(hostname: &str, domain: Option<&str>, ip: Option<Ipv4Addr>) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
        ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        .to_owned();
    let ip = ip.unwrap_or(Ipv4Addr::LOCALHOST);
    // As Docker: the full name, which is the canonical one, then its first label.
    let names = match (domain, hostname.split_once('.')) {
        (Some(domain), _) => format!("{hostname}.{domain} {hostname}"),
        (None, Some((short, _))) => format!("{hostname} {short}"),
        (None, None) => hostname.to_owned(),
    };
    text.push_str(&format!("{ip}\t{names}\n"));
    text
}

/// The host's resolv.conf without name servers that only the host itself can reach.
fn reachable_resolv_conf(host: &str) -> String {
    let is_server = |l: &str| l.trim_start().starts_with("nameserver");
    let is_local = |l: &str| {
        let address = l.split_whitespace().nth(1).and_then(|a| a.parse::<std::net::IpAddr>().ok());
        address.is_none_or(|a| a.is_loopback() || a.is_ipv6())
    };
    let mut lines: Vec<String> = host.lines().filter(|l| !(is_server(l) && is_local(l))).map(str::to_owned).collect();
    if !lines.iter().any(|l| is_server(l)) {
        lines.extend(FALLBACK_NAMESERVERS.map(|s| format!("nameserver {s}")));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_the_hosts_loopback_are_replaced() {
        assert_eq!(
            reachable_resolv_conf("search a\nnameserver 127.0.0.1\n"),
            "search a\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
    }

    #[test]
    fn reachable_name_servers_and_options_are_kept() {
        let text = "nameserver 10.0.0.2\noptions edns0\n";
        assert_eq!(reachable_resolv_conf(text), text);
    }

    #[test]
    fn the_containers_own_name_resolves_to_its_address() {
        let ip = Some(Ipv4Addr::new(10, 89, 0, 2));
        assert!(hosts_file("web", None, ip).ends_with("10.89.0.2\tweb\n"));
        assert!(hosts_file("web.example.com", None, ip).ends_with("10.89.0.2\tweb.example.com web\n"));
        assert!(hosts_file("web", Some("example.org"), ip).ends_with("10.89.0.2\tweb.example.org web\n"));
    }
}
