//! A tar writer that writes whatever it is told, hostile names included: a library would refuse some.

/// Type flags of ustar.
pub mod kind {
    /// Regular file.
    pub const FILE: u8 = b'0';
    /// Hard link.
    pub const HARD_LINK: u8 = b'1';
    /// Symbolic link.
    pub const SYMLINK: u8 = b'2';
    /// Directory.
    pub const DIRECTORY: u8 = b'5';
}

/// An archive in memory.
#[derive(Debug, Clone, Default)]
pub struct Tarball {
    bytes: Vec<u8>,
    owner: (u32, u32),
}

impl Tarball {
    /// An empty archive.
    pub fn new() -> Tarball {
        Tarball::default()
    }

    /// Whose the entries from here on are: uid and gid.
    #[must_use]
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Tarball {
        self.owner = (uid, gid);
        self
    }

    /// A directory.
    #[must_use]
    pub fn directory(self, name: &str, mode: u32) -> Tarball {
        self.entry(kind::DIRECTORY, name, mode, "", &[])
    }

    /// A regular file.
    #[must_use]
    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> Tarball {
        self.entry(kind::FILE, name, mode, "", content)
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Tarball {
        self.entry(kind::SYMLINK, name, 0o777, target, &[])
    }

    /// A hard link.
    #[must_use]
    pub fn hard_link(self, name: &str, target: &str) -> Tarball {
        self.entry(kind::HARD_LINK, name, 0o644, target, &[])
    }

    /// Any entry, root's unless said otherwise, with a fixed time.
    #[must_use]
    pub fn entry(mut self, kind: u8, name: &str, mode: u32, link: &str, content: &[u8]) -> Tarball {
        assert!(name.len() <= 100 && link.len() <= 100, "names of the tests fit into a plain header");
        let mut header = [0_u8; 512];
        put(&mut header, 0, name.as_bytes());
        put(&mut header, 100, format!("{mode:07o}").as_bytes());
        put(&mut header, 108, format!("{:07o}", self.owner.0).as_bytes());
        put(&mut header, 116, format!("{:07o}", self.owner.1).as_bytes());
        put(&mut header, 124, format!("{:011o}", content.len()).as_bytes());
        put(&mut header, 136, b"14000000000");
        header[156] = kind;
        put(&mut header, 157, link.as_bytes());
        put(&mut header, 257, b"ustar\x0000");
        put(&mut header, 148, b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(header);
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The archive with its end mark.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

fn put(header: &mut [u8; 512], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn gnu_tar_reads_what_we_write() {
        let tar = Tarball::new().directory("d/", 0o755).file("d/f", 0o644, b"hello").symlink("d/l", "f").finish();
        let mut list = Command::new("tar").arg("-tvf-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        list.stdin.take().unwrap().write_all(&tar).unwrap();
        let output = list.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(text.lines().any(|line| line.starts_with("-rw-r--r-- 0/0") && line.ends_with("d/f")), "{text}");
        assert!(text.lines().any(|line| line.ends_with("d/l -> f")), "{text}");
    }
}
