//! Which images are mounted where.
//!
//! ```text
//! <runroot>/image-mounts/          0700
//!   mounts.json                    a list of Record; written before a mount is made and after it is gone,
//!                                  under the lock `image-mounts`
//!   <hex of an image id>/          where an image is seen that was given no directory
//!   empty/                         stands for a missing layer
//! ```
//! A mount belongs to a mount namespace. A record whose mount is not there any more, or whose namespace has ended, is
//! stale: a crash, a reboot or umount(8) leaves such. It counts for nothing, and whoever writes next drops it.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use onggi_spec::Digest;
use onggi_state::files::Lock;
use serde::{Deserialize, Serialize};

use crate::{Engine, EngineError, facts, json};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The image's id.
    pub(crate) image: Digest,
    /// Its layers: they stay as long as the mount does, whatever becomes of the image.
    pub(crate) chain_ids: Vec<Digest>,
    /// Where.
    pub(crate) target: PathBuf,
    /// The directory is ours.
    pub(crate) own: bool,
    /// How often it was mounted and not unmounted.
    pub(crate) users: u32,
    /// Inode number of the mount namespace.
    pub(crate) namespace: u64,
    /// Source of the mount, or the end of its root.
    pub(crate) mark: String,
}

/// The records, alone.
pub(crate) struct Records {
    path: PathBuf,
    _lock: Lock,
    /// Those whose mounts are there.
    pub(crate) live: Vec<Record>,
    /// The others.
    pub(crate) lost: Vec<Record>,
}

impl Engine {
    /// Directory of what is said of mounted images.
    pub(crate) fn image_mounts_dir(&self) -> PathBuf {
        self.paths.runroot.join("image-mounts")
    }

    /// The records, locked against others.
    pub(crate) fn image_mount_records(&self) -> Result<Records, EngineError> {
        let lock = Lock::exclusive(&Lock::named(&self.paths.runroot, "image-mounts")?)?;
        let path = self.image_mounts_dir().join("mounts.json");
        let all = match json::read_optional::<Vec<Record>>(&path) {
            // A power cut can empty a file of a run root that is no tmpfs; its mounts are gone then, too.
            Err(EngineError::DamagedFile { .. }) => Vec::new(),
            other => other?.unwrap_or_default(),
        };
        let (mounts, here) = (facts::mounts(), own_namespace());
        let (live, lost) = all.into_iter().partition(|record| is_live(record, here, &mounts));
        Ok(Records { path, _lock: lock, live, lost })
    }

    /// What is mounted, as far as it is known; nothing is made for the question.
    pub(crate) fn mounted_images(&self) -> Result<Vec<Record>, EngineError> {
        if !self.image_mounts_dir().exists() {
            return Ok(Vec::new());
        }
        Ok(self.image_mount_records()?.live)
    }

    /// Forgets mounts that are gone, with their directories; returns where they were.
    pub(crate) fn forget_lost_mounts(&self) -> Result<Vec<Record>, EngineError> {
        if !self.image_mounts_dir().exists() {
            return Ok(Vec::new());
        }
        let mut records = self.image_mount_records()?;
        let lost = std::mem::take(&mut records.lost);
        for record in lost.iter().filter(|record| record.own && !records.uses(&record.target)) {
            // Not empty, or something is mounted there that is not ours: then it is not ours to remove.
            let _ = std::fs::remove_dir(&record.target);
        }
        if !lost.is_empty() {
            records.save()?;
        }
        Ok(lost)
    }
}

impl Records {
    /// Writes the live ones.
    pub(crate) fn save(&self) -> Result<(), EngineError> {
        json::write(&self.path, &self.live)
    }

    /// A live mount is at this place, in whichever namespace.
    pub(crate) fn uses(&self, target: &Path) -> bool {
        self.live.iter().any(|record| record.target == target)
    }
}

/// The number of the mount namespace that we are in.
pub(crate) fn own_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/mnt").map_or(0, |meta| meta.ino())
}

fn is_live(record: &Record, here: u64, mounts: &[facts::MountLine]) -> bool {
    if record.namespace != here {
        return lives(record.namespace);
    }
    // The topmost mount of a place is the last.
    let found = mounts.iter().rev().find(|line| Path::new(&line.path) == record.target);
    found.is_some_and(|line| line.source == record.mark || line.root.ends_with(&record.mark))
}

/// Whether a process is in that mount namespace.
fn lives(namespace: u64) -> bool {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        // Processes of others are not ours to look at, and not in a namespace that we mounted in.
        std::fs::metadata(entry.path().join("ns/mnt")).is_ok_and(|meta| meta.ino() == namespace)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(mark: &str) -> Record {
        Record {
            image: Digest::from_sha256(&[1; 32]),
            chain_ids: Vec::new(),
            target: "/m/a".into(),
            own: true,
            users: 1,
            namespace: 7,
            mark: mark.to_owned(),
        }
    }

    #[test]
    fn a_record_counts_while_exactly_its_mount_is_there() {
        let text = "40 23 0:50 / /m/a ro,nosuid - overlay onggi-image-abc ro,lowerdir=/x\n\
                    41 23 8:1 /store/layers/ff/tree /m/b ro - ext4 /dev/sda ro\n";
        let mounts = facts::parse_mountinfo(text);
        assert!(is_live(&record("onggi-image-abc"), 7, &mounts));
        assert!(!is_live(&record("onggi-image-other"), 7, &mounts));
        let bound = Record { target: "/m/b".into(), ..record("/layers/ff/tree") };
        assert!(is_live(&bound, 7, &mounts));
        // Something else was mounted over it.
        let covered = format!("{text}42 40 0:51 / /m/a rw - tmpfs tmpfs rw\n");
        assert!(!is_live(&record("onggi-image-abc"), 7, &facts::parse_mountinfo(&covered)));
    }

    #[test]
    fn a_namespace_lives_while_a_process_is_in_it() {
        assert!(lives(own_namespace()));
        assert!(!lives(1));
    }
}
