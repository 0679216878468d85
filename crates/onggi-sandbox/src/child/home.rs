//! HOME of a user, from the container's own /etc/passwd (I10): a regular file, read in the root, bounded. runc
//! sets it when the configuration does not; passwd(5).

use std::{os::fd::AsFd, path::Path};

use onggi_sys::path::{self, OFlags};
use rustix::fs::FileType;

use super::{Child, process::own_root};
use crate::error::{Result, Step};

/// Bytes of /etc/passwd that are looked at: some ten thousand users.
const MAX_PASSWD: usize = 1 << 20;
/// Most files are shorter; the process may have a small limit of memory by now.
const FIRST_READ: usize = 4096;
/// Without an entry.
const DEFAULT_HOME: &[u8] = b"/";

impl Child {
    /// Adds HOME to the environment.
    pub(super) fn set_home(&mut self, uid: u32) -> Result<()> {
        let found = read_passwd()?.as_deref().and_then(|text| home_of(text, uid));
        let home = found.unwrap_or_else(|| DEFAULT_HOME.to_vec());
        let entry = [b"HOME=", home.as_slice()].concat();
        self.prepared.envp.push(&entry).step(|| "set HOME".into())
    }
}

/// `None` when there is no such file, or something else in its place.
fn read_passwd() -> Result<Option<Vec<u8>>> {
    let root = own_root()?;
    // NONBLOCK: a FIFO in its place must not stop anybody.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = path::open_in_root(root.as_fd(), Path::new("/etc/passwd"), flags) else { return Ok(None) };
    let regular = rustix::fs::fstat(&file).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
    if !regular {
        return Ok(None);
    }
    let mut text = vec![0u8; FIRST_READ];
    let mut length = 0;
    while length < MAX_PASSWD {
        if length == text.len() {
            text.resize((length * 2).min(MAX_PASSWD), 0);
        }
        match rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut text[length..], length as u64)) {
            Ok(n) if n > 0 => length += n,
            _ => break,
        }
    }
    text.truncate(length);
    Ok(Some(text))
}

/// The sixth field of the first line whose third is `uid`; an empty one is none. A line break or NUL cannot be
/// in it, `=` may be.
fn home_of(passwd: &[u8], uid: u32) -> Option<Vec<u8>> {
    let uid = uid.to_string();
    let line = passwd.split(|b| *b == b'\n').find(|line| field(line, 2) == Some(uid.as_bytes()))?;
    let home = field(line, 5).filter(|h| !h.is_empty() && !h.contains(&0))?;
    Some(home.to_vec())
}

fn field(line: &[u8], number: usize) -> Option<&[u8]> {
    line.split(|b| *b == b':').nth(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\n# 7:x:8\n1000:x:5:5::/five:\nu:x:1000:1000::/home/u:/bin/sh\nv:x:6:6:::\n";

    #[test]
    fn homes_are_found_by_number_alone() {
        assert_eq!(home_of(PASSWD, 0), Some(b"/root".to_vec()));
        assert_eq!(home_of(PASSWD, 1000), Some(b"/home/u".to_vec()));
        assert_eq!(home_of(PASSWD, 5), Some(b"/five".to_vec()));
    }

    #[test]
    fn an_absent_or_empty_or_broken_entry_has_no_home() {
        assert_eq!(home_of(PASSWD, 6), None);
        assert_eq!(home_of(PASSWD, 7), None);
        assert_eq!(home_of(b"", 0), None);
        assert_eq!(home_of(b"root:x:0", 0), None);
        assert_eq!(home_of(b"root:x:00:0::/wrong:\nroot:x:0:0::/a\0b:", 0), None);
    }
}
