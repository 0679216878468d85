//! What a planner may know of a group: its control files and what they say.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
};

use onggi_spec::facts::CgroupLayout;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::{
    GroupError, Place, Version,
    members::{commands, keepers},
};

/// Lists of members: long, changing, and nothing that is set.
const MEMBERS: [&str; 3] = ["tasks", "cgroup.procs", "cgroup.threads"];
/// Bytes of a control file that are kept; statistics of many devices are longer than anything that is set.
const MAX_TEXT: u64 = 64 * 1024;

/// Block devices by the words that name them: major and minor number.
pub type Devices = BTreeMap<String, (u32, u32)>;

/// A control file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ControlFile {
    /// What it says, without the last line break; empty where it cannot be read.
    pub text: String,
    /// Something may be written to it.
    pub writable: bool,
    /// Something may be read from it.
    pub readable: bool,
    /// Index of its directory among the places.
    pub place: usize,
}

/// A group as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFacts {
    /// Which interface.
    pub version: Version,
    /// Its directories.
    pub places: Vec<Place>,
    /// Control files by name.
    pub files: BTreeMap<String, ControlFile>,
    /// What the directories above give to their children; of those that are not in it nothing is known.
    pub offers: Offers,
}

impl GroupFacts {
    /// Reads every control file of the group.
    ///
    /// # Errors
    /// A directory cannot be listed. Files that cannot be read count as empty.
    pub fn gather(version: Version, places: Vec<Place>) -> Result<Self, GroupError> {
        let mut files = BTreeMap::new();
        for (place, at) in places.iter().enumerate() {
            let failed = |source| GroupError::Io { operation: "list", path: at.dir.clone(), source };
            for entry in fs::read_dir(&at.dir).map_err(failed)?.flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                let Ok(name) = entry.file_name().into_string() else { continue };
                // On hybrid layouts version 1 files win over those of the same name beside them.
                if !metadata.is_file() || (at.controllers.is_empty() && files.contains_key(&name)) {
                    continue;
                }
                let mode = metadata.permissions().mode();
                let (readable, writable) = (mode & 0o444 != 0, mode & 0o222 != 0);
                let wanted = readable && !MEMBERS.contains(&name.as_str());
                let text = if wanted { read(&entry.path()) } else { String::new() };
                files.insert(name, ControlFile { text, writable, readable, place });
            }
        }
        let offers = if version == Version::V2 { offered(&places) } else { Offers::new() };
        Ok(Self { version, places, files, offers })
    }

    /// What a file says, if it is there.
    pub fn text(&self, file: &str) -> Option<&str> {
        self.files.get(file).map(|f| f.text.as_str())
    }

    /// What a file says now, also one whose text is not among the facts: lists of members, and those that could not be read.
    ///
    /// # Errors
    /// The group has no such file, or it cannot be read: a feature that is switched off (EOPNOTSUPP), a permission.
    pub fn read(&self, file: &str) -> Result<String, GroupError> {
        let place = self.files.get(file).and_then(|found| self.places.get(found.place));
        let path = place.map_or_else(|| file.into(), |place| place.dir.join(file));
        match fs::File::open(&path).and_then(limited) {
            Ok(text) => Ok(text),
            Err(source) => Err(GroupError::Io { operation: "read", path, source }),
        }
    }

    /// The setting or control file that `key` may have been meant to be.
    pub fn near(&self, key: &str) -> Option<String> {
        super::keys::near(key, self)
    }

    /// One number; `max` is none.
    pub(crate) fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    /// Whether the group is in this controller: version 2 groups may be given it when it is needed.
    pub(crate) fn is_in(&self, controller: &str) -> bool {
        self.version == Version::V2 || self.places.iter().any(|p| p.controllers.iter().any(|c| c == controller))
    }
}

/// What is told only where a file is asked for by name: EOPNOTSUPP of a feature that is switched off, EINVAL of files that
/// are written only.
fn read(path: &std::path::Path) -> String {
    fs::File::open(path).and_then(limited).unwrap_or_default()
}

fn limited(file: fs::File) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    file.take(MAX_TEXT).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// The numbers of the block devices that values name: `/dev/sda:1m`, `8:0:1m`.
///
/// # Errors
/// One of them is none.
pub fn device_numbers<'v>(values: impl Iterator<Item = (&'v str, &'v str)>) -> Result<Devices, GroupError> {
    let mut devices = Devices::new();
    for (_, value) in values.filter(|(key, _)| key.starts_with("io-") || key.starts_with("device-")) {
        let Some((device, _)) = value.rsplit_once(':').filter(|(device, _)| device.starts_with('/')) else { continue };
        let no = || GroupError::NoDevice { device: device.chars().take(128).collect() };
        let found = fs::metadata(device).ok().filter(|m| m.file_type().is_block_device()).ok_or_else(no)?;
        let number = found.rdev();
        devices.insert(device.to_owned(), (rustix::fs::major(number), rustix::fs::minor(number)));
    }
    Ok(devices)
}

/// The control groups of this machine, as this process sees them.
///
/// # Errors
/// They cannot be read.
pub fn layout() -> Result<CgroupLayout, GroupError> {
    Ok(onggi_cgroup::layout::detect()?)
}

/// What a version 2 directory gives to its children, and who keeps it from giving more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    /// `cgroup.subtree_control`.
    pub controllers: Vec<String>,
    /// Processes of its own with their commands; none for the root, which may have both.
    pub processes: Vec<(i32, String)>,
    /// It belongs to somebody else, who decides what it gives.
    pub closed: bool,
}

/// What directories give to their children.
pub type Offers = BTreeMap<PathBuf, Offer>;

/// What the directories above the places offer to their children; nothing on version 1.
pub fn offered(places: &[Place]) -> Offers {
    let above = places.iter().flat_map(|place| {
        place.dir.ancestors().skip(1).take_while(|dir| dir.starts_with(&place.mount)).map(PathBuf::from)
    });
    let offers = |dir: PathBuf| {
        let text = fs::read_to_string(dir.join("cgroup.subtree_control")).ok()?;
        let controllers = text.split_ascii_whitespace().map(str::to_owned).collect();
        let processes = commands(&keepers(&dir));
        let control = dir.join("cgroup.subtree_control");
        let closed = accessat(CWD, &control, Access::WRITE_OK, AtFlags::EACCESS).is_err();
        Some((dir, Offer { controllers, processes, closed }))
    };
    above.filter_map(offers).collect()
}
