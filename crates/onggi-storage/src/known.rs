//! What unpacking has seen of files, by inode, so that a layer's record is written without looking at each again.
//!
//! An inode number says nothing about a file that was replaced: whoever makes something that is not remembered here must
//! [`Known::forget`] its number.

use std::collections::HashMap;

use onggi_sys::fs::{FileType, Stat, file_type};

use crate::limits::MAX_REMEMBERED;

/// A file or a link without extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// A link, otherwise a regular file.
    pub link: bool,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time as the filesystem keeps it: seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Bytes of content.
    pub length: u64,
    /// CRC-32 of the content or of the link's target.
    pub content: u32,
}

/// All that is known of one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known(HashMap<u64, Facts>);

impl Known {
    /// Keeps what the filesystem says of a file that is complete but for its mode, and the checksum of what was written.
    pub(crate) fn remember(&mut self, stat: &Stat, mode: u32, content: u32) {
        if self.0.len() >= MAX_REMEMBERED {
            return self.forget(stat.st_ino);
        }
        let link = file_type(stat) == FileType::Symlink;
        let length = if link { 0 } else { stat.st_size.max(0).cast_unsigned() };
        let mtime = (stat.st_mtime, stat.st_mtime_nsec.cast_signed());
        let facts = Facts { link, mode, uid: stat.st_uid, gid: stat.st_gid, mtime, length, content };
        self.0.insert(stat.st_ino, facts);
    }

    /// Nothing is known of this inode any more.
    pub(crate) fn forget(&mut self, ino: u64) {
        self.0.remove(&ino);
    }

    /// What is known, if the directory's idea of the type agrees.
    pub(crate) fn get(&self, ino: u64, kind: FileType) -> Option<&Facts> {
        let facts = self.0.get(&ino)?;
        let same = if facts.link { kind == FileType::Symlink } else { kind == FileType::RegularFile };
        same.then_some(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_used_again_for_another_type_is_not_known() {
        let mut known = Known::default();
        let file = onggi_sys::fs::stat(std::os::fd::AsFd::as_fd(&tempfile::tempfile().unwrap())).unwrap();
        known.remember(&file, 0o600, 7);
        assert_eq!(known.get(file.st_ino, FileType::RegularFile).map(|facts| facts.content), Some(7));
        assert_eq!(known.get(file.st_ino, FileType::Symlink), None);
        known.forget(file.st_ino);
        assert_eq!(known.get(file.st_ino, FileType::RegularFile), None);
    }
}
