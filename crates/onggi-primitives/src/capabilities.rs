//! Capabilities of processes (proc_pid_status(5)) and of files (capabilities(7), "File capabilities").

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::{PrimitiveError, confinement::field, process};

/// The extended attribute that holds a file's capabilities.
pub(crate) const ATTRIBUTE: &str = "security.capability";
/// Bytes of its longest form, `struct vfs_ns_cap_data`.
const LONGEST: usize = 24;
/// `VFS_CAP_REVISION_MASK` and the revisions of linux/capability.h.
const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_1: u32 = 0x0100_0000;
pub(crate) const REVISION_2: u32 = 0x0200_0000;
pub(crate) const REVISION_3: u32 = 0x0300_0000;
/// `VFS_CAP_FLAGS_EFFECTIVE`.
pub(crate) const EFFECTIVE: u32 = 1;

/// The five sets of a process, as masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilitySets {
    /// What exec(2) may keep of the file's inheritable set.
    pub inheritable: u64,
    /// What it may make effective.
    pub permitted: u64,
    /// What the kernel checks.
    pub effective: u64,
    /// What it can ever get.
    pub bounding: u64,
    /// What it keeps over exec(2) of a plain program.
    pub ambient: u64,
    /// exec(2) gives nothing: no set-user-id, no file capabilities (PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
}

/// The capabilities of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileCapabilities {
    /// Given to whoever executes it, within the bounding set.
    pub permitted: u64,
    /// Given to whoever has them inheritable.
    pub inheritable: u64,
    /// What is permitted is effective at once.
    pub effective: bool,
    /// The root of the user namespace that they are for; none for the first one.
    pub root: Option<u32>,
}

/// The sets of a process.
///
/// # Errors
/// There is no such process, or /proc is not what it should be.
pub fn process_capabilities(pid: i32) -> Result<CapabilitySets, PrimitiveError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let status = process::read(&path, pid)?;
    sets(&status).ok_or(PrimitiveError::Format { path })
}

pub(crate) fn sets(status: &str) -> Option<CapabilitySets> {
    let mask = |name: &str| u64::from_str_radix(field(status, name)?, 16).ok();
    Some(CapabilitySets {
        inheritable: mask("CapInh")?,
        permitted: mask("CapPrm")?,
        effective: mask("CapEff")?,
        bounding: mask("CapBnd")?,
        ambient: mask("CapAmb")?,
        no_new_privileges: field(status, "NoNewPrivs")? == "1",
    })
}

/// The capabilities of a file; `None` for one without.
///
/// # Errors
/// The file cannot be read, or its attribute is none that the kernel would accept.
pub fn file_capabilities(path: &Path) -> Result<Option<FileCapabilities>, PrimitiveError> {
    let mut buffer = [0u8; LONGEST];
    let length = match rustix::fs::getxattr(path, ATTRIBUTE, &mut buffer[..]) {
        Ok(length) => length,
        // Without the attribute, or on a filesystem without such attributes.
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(e) => return Err(PrimitiveError::Read { path: path.to_owned(), source: io::Error::from(e) }),
    };
    decode(&buffer[..length]).map(Some).ok_or_else(|| PrimitiveError::Format { path: path.to_owned() })
}

/// `struct vfs_cap_data` and `struct vfs_ns_cap_data`: little-endian words.
fn decode(bytes: &[u8]) -> Option<FileCapabilities> {
    let words: Vec<u32> = bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let wide = |low: usize| u64::from(words[low]) | u64::from(words[low + 2]) << 32;
    let magic = *words.first()?;
    let (permitted, inheritable, root) = match (magic & REVISION_MASK, bytes.len()) {
        (REVISION_1, 12) => (u64::from(words[1]), u64::from(words[2]), None),
        (REVISION_2, 20) => (wide(1), wide(2), None),
        (REVISION_3, 24) => (wide(1), wide(2), Some(words[5])),
        _ => return None,
    };
    Some(FileCapabilities { permitted, inheritable, effective: magic & EFFECTIVE != 0, root })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_sets_of_a_status_file_are_read() {
        let text = "Name:\tx\nCapInh:\t0000000000000001\nCapPrm:\t0000000000000002\nCapEff:\t0000000000000004\n\
                    CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000008\nNoNewPrivs:\t1\n";
        let expected = CapabilitySets {
            inheritable: 1,
            permitted: 2,
            effective: 4,
            bounding: 0x1ff_ffff_ffff,
            ambient: 8,
            no_new_privileges: true,
        };
        assert_eq!(sets(text), Some(expected));
        assert_eq!(sets("CapInh:\tzz\n"), None);
        let own = process_capabilities(std::process::id().cast_signed()).expect("we exist");
        assert_eq!(own.effective & !own.permitted, 0, "what is effective is permitted");
    }

    #[test]
    fn every_revision_of_a_files_attribute_is_read() {
        let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let raw = FileCapabilities { permitted: 0x2000, inheritable: 0, effective: true, root: None };
        assert_eq!(decode(&bytes(&[REVISION_1 | EFFECTIVE, 0x2000, 0])), Some(raw));
        assert_eq!(decode(&bytes(&[REVISION_2 | EFFECTIVE, 0x2000, 0, 0, 0])), Some(raw));
        let owned = FileCapabilities { root: Some(100_000), effective: false, inheritable: 1 << 32, ..raw };
        assert_eq!(decode(&bytes(&[REVISION_3, 0x2000, 0, 0, 1, 100_000])), Some(owned));
        let wrong: [&[u32]; 5] =
            [&[], &[REVISION_1], &[REVISION_2, 0, 0], &[0x0400_0000, 0, 0, 0, 0], &[REVISION_3; 5]];
        assert_eq!(wrong.map(|words| decode(&bytes(words))), [None; 5]);
    }

    #[test]
    fn a_file_without_capabilities_has_none_and_one_that_is_missing_is_named() {
        let dir = tempfile::tempdir().expect("a directory is made");
        let path = dir.path().join("plain");
        std::fs::write(&path, "").expect("a file is made");
        assert_eq!(file_capabilities(&path).expect("it is there"), None);
        let error = file_capabilities(&dir.path().join("none")).expect_err("it is not there");
        assert!(error.to_string().ends_with("/none"), "{error}");
    }
}
