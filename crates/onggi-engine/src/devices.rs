//! Devices of the host that a container is given, as they are when it starts.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use onggi_spec::{
    ContainerRequest,
    device::DeviceSpec,
    oci::{build::HostDevice, runtime::LinuxDevice},
    resources::{BlockLimit, Resources},
};

use crate::EngineError;

/// How deep a directory of devices is looked through: /dev/bus/usb/001/002 is the deepest that there is.
const MAX_DEPTH: usize = 6;
/// Most devices of one container: a machine has some hundreds (I12).
const MAX_DEVICES: usize = 4096;
/// Below /dev, what each container has of its own.
const OWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", "console", ".lxc"];

fn unusable(what: String, reason: &str) -> EngineError {
    EngineError::Unsupported { what, reason: reason.to_owned(), hint: "`ls -l /dev` lists the devices".into() }
}

/// Major and minor numbers of the block devices that are limited.
pub(crate) fn limited(resources: &Resources) -> Result<BTreeMap<String, (u32, u32)>, EngineError> {
    let number = |limit: &BlockLimit| {
        let wrong = |reason| unusable(format!("{} {}", limit.kind.option(), limit.path), reason);
        let found = fs::metadata(&limit.path).map_err(|_| wrong("there is no such device"))?;
        if !found.file_type().is_block_device() {
            return Err(wrong("it is no block device"));
        }
        let number = found.rdev();
        Ok((limit.path.clone(), (rustix::fs::major(number), rustix::fs::minor(number))))
    };
    resources.block_devices.iter().map(number).collect()
}

/// The devices that were asked for. A privileged container of root has all; in a user namespace a device is of no use to
/// who does not own it, so there only the named ones are tried.
pub(crate) fn asked(request: &ContainerRequest, in_user_namespace: bool) -> Result<Vec<HostDevice>, EngineError> {
    let mut all = Vec::new();
    for device in &request.devices {
        named(device, &mut all)?;
    }
    if request.privileged && !in_user_namespace {
        let whole = DeviceSpec { host: "/dev".into(), target: "/dev".into(), access: "rwm".into() };
        let mut found = Vec::new();
        below(Path::new("/dev"), &whole, 0, &mut found);
        found.retain(|device| !all.iter().any(|own: &HostDevice| own.node.path == device.node.path));
        all.extend(found);
    }
    Ok(all)
}

fn named(device: &DeviceSpec, all: &mut Vec<HostDevice>) -> Result<(), EngineError> {
    let wrong = |reason: &str| unusable(format!("--device {}", device.host), reason);
    let path = PathBuf::from(&device.host);
    let found = fs::metadata(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => wrong("there is no such device: no such file or directory"),
        _ => wrong(&e.to_string()),
    })?;
    if found.is_dir() {
        let before = all.len();
        below(&path, device, 0, all);
        return if all.len() > before { Ok(()) } else { Err(wrong("there is no device in it")) };
    }
    let node = node(&device.target, &found).ok_or_else(|| wrong("it is no device"))?;
    let source = fs::canonicalize(&path).ok().and_then(|path| path.to_str().map(str::to_owned));
    let source = source.ok_or_else(|| wrong("its path is not valid UTF-8"))?;
    all.push(HostDevice { source, node, access: device.access.clone() });
    Ok(())
}

/// Every device below `dir`. What goes away meanwhile is not there, and links are what `/dev` is full of twice.
fn below(dir: &Path, root: &DeviceSpec, depth: usize, all: &mut Vec<HostDevice>) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if (depth == 0 && OWN.iter().any(|own| name == *own)) || all.len() >= MAX_DEVICES {
            continue;
        }
        let path = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() && depth < MAX_DEPTH {
            below(&path, root, depth + 1, all);
        }
        let inside = path.strip_prefix(&root.host).ok().and_then(Path::to_str);
        let target = inside.map(|inside| format!("{}/{inside}", root.target.trim_end_matches('/')));
        if let (Some(node), Some(source)) = (target.and_then(|target| node(&target, &found)), path.to_str()) {
            all.push(HostDevice { source: source.to_owned(), node, access: root.access.clone() });
        }
    }
}

fn node(target: &str, found: &fs::Metadata) -> Option<LinuxDevice> {
    let kind = found.file_type();
    let typ = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => "c",
        (_, true) => "b",
        _ => return None,
    };
    let number = found.rdev();
    Some(LinuxDevice {
        typ: typ.to_owned(),
        path: target.to_owned(),
        major: rustix::fs::major(number).into(),
        minor: rustix::fs::minor(number).into(),
        file_mode: Some(found.mode() & 0o7777),
        uid: Some(found.uid()),
        gid: Some(found.gid()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use onggi_spec::ImageSource;

    fn request(devices: &[(&str, &str)]) -> ContainerRequest {
        let spec = |(host, target): &(&str, &str)| DeviceSpec {
            host: (*host).to_owned(),
            target: (*target).to_owned(),
            access: "rw".into(),
        };
        ContainerRequest { devices: devices.iter().map(spec).collect(), ..ContainerRequest::of(ImageSource::Host) }
    }

    #[test]
    fn a_device_has_its_numbers_and_mode() {
        let found = asked(&request(&[("/dev/null", "/dev/nothing")]), false).expect("there is one");
        let node = &found[0].node;
        assert_eq!((node.typ.as_str(), node.path.as_str(), node.major, node.minor), ("c", "/dev/nothing", 1, 3));
        assert_eq!((found.len(), found[0].access.as_str()), (1, "rw"));
    }

    #[test]
    fn what_is_no_device_is_told() {
        for (path, reason) in
            [("/dev/onggi-no", "no such file"), ("/etc/passwd", "no device"), ("/proc/self", "no device")]
        {
            let told = asked(&request(&[(path, path)]), false).expect_err(path).to_string();
            assert!(told.contains(reason), "{told}");
        }
    }

    #[test]
    fn a_privileged_container_has_what_is_in_dev_but_what_is_its_own() {
        let all = ContainerRequest { privileged: true, ..request(&[("/dev/null", "/dev/null")]) };
        let paths: Vec<String> = asked(&all, false).expect("devices").into_iter().map(|d| d.node.path).collect();
        assert_eq!(paths.iter().filter(|path| *path == "/dev/null").count(), 1);
        assert!(paths.contains(&"/dev/zero".to_owned()));
        assert!(!paths.iter().any(|path| path.starts_with("/dev/pts/")), "{paths:?}");
        assert_eq!(asked(&all, true).expect("devices").len(), 1);
    }
}
