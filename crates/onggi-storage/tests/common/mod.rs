//! Archives by hand (right and wrong ones), and trees as text.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use onggi_storage::StorageError;

/// One header block in the making.
#[derive(Clone)]
pub struct H(pub [u8; 512]);

impl H {
    pub fn new(flag: u8, name: impl AsRef<[u8]>) -> Self {
        let mut h = Self([0; 512]).bytes(0, name).octal(100, 8, 0o644).octal(108, 8, 0).octal(116, 8, 0);
        if flag == b'5' {
            h = h.octal(100, 8, 0o755);
        }
        h.octal(124, 12, 0).octal(136, 12, 1_000_000_000).bytes(156, [flag]).bytes(257, b"ustar\x0000")
    }
    pub fn bytes(mut self, at: usize, data: impl AsRef<[u8]>) -> Self {
        let data = data.as_ref();
        self.0[at..at + data.len()].copy_from_slice(data);
        self
    }
    pub fn octal(self, at: usize, width: usize, value: u64) -> Self {
        self.bytes(at, format!("{value:0w$o}\0", w = width - 1))
    }
    pub fn gnu(self) -> Self {
        self.bytes(257, b"ustar  \0")
    }
    pub fn v7(self) -> Self {
        self.bytes(257, [0; 8])
    }
    pub fn link(self, target: impl AsRef<[u8]>) -> Self {
        self.bytes(157, target)
    }
    pub fn mode(self, mode: u64) -> Self {
        self.octal(100, 8, mode)
    }
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        self.octal(108, 8, uid).octal(116, 8, gid)
    }
    pub fn size(self, size: u64) -> Self {
        self.octal(124, 12, size)
    }
    pub fn device(self, major: u64, minor: u64) -> Self {
        self.octal(329, 8, major).octal(337, 8, minor)
    }
    pub fn done(mut self) -> [u8; 512] {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|b| u64::from(*b)).sum();
        self.bytes(148, format!("{sum:06o}\0 ")).0
    }
}

/// An archive in the making.
#[derive(Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn raw(&mut self, header: H, data: impl AsRef<[u8]>) -> &mut Self {
        self.0.extend(header.done());
        self.0.extend(data.as_ref());
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    pub fn file(&mut self, name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> &mut Self {
        self.raw(H::new(b'0', name).size(data.as_ref().len() as u64), data)
    }
    pub fn dir(&mut self, name: impl AsRef<[u8]>) -> &mut Self {
        self.raw(H::new(b'5', name), [])
    }
    pub fn sym(&mut self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> &mut Self {
        self.raw(H::new(b'2', name).link(target), [])
    }
    pub fn hard(&mut self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> &mut Self {
        self.raw(H::new(b'1', name).link(target), [])
    }
    /// An extended header for the next entry.
    pub fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        let data = records.iter().flat_map(|(k, v)| record(k, v)).collect::<Vec<u8>>();
        self.raw(H::new(b'x', "PaxHeaders/x").size(data.len() as u64), data)
    }
    pub fn global(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        let data = records.iter().flat_map(|(k, v)| record(k, v)).collect::<Vec<u8>>();
        self.raw(H::new(b'g', "pax_global_header").size(data.len() as u64), data)
    }
    /// A GNU long name (`L`) or link target (`K`).
    pub fn long(&mut self, flag: u8, name: impl AsRef<[u8]>) -> &mut Self {
        let data = [name.as_ref(), b"\0"].concat();
        self.raw(H::new(flag, "././@LongLink").gnu().size(data.len() as u64), data)
    }
    pub fn end(&mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        std::mem::take(&mut self.0)
    }
}

/// One PAX record with its own length in front.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = [key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = body.len() + 2;
    while format!("{length}").len() + 1 + body.len() != length {
        length += 1;
    }
    [format!("{length} ").as_bytes(), &body].concat()
}

/// A tree as `path -> words`: type, mode, then content, target or device.
pub fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    walk(root, "", &mut out);
    out
}

fn walk(root: &Path, at: &str, out: &mut BTreeMap<String, String>) {
    let mut names: Vec<_> = std::fs::read_dir(root.join(at)).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let name = name.to_string_lossy();
        let path = if at.is_empty() { name.to_string() } else { format!("{at}/{name}") };
        let full = root.join(&path);
        out.insert(path.clone(), words(&full));
        if full.symlink_metadata().unwrap().is_dir() {
            walk(root, &path, out);
        }
    }
}

fn words(path: &Path) -> String {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let mode = meta.mode() & 0o7777;
    let device = format!("{}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    if kind.is_symlink() {
        return format!("l {}", std::fs::read_link(path).unwrap().display());
    }
    if kind.is_dir() {
        let opaque = rustix::fs::getxattr(path, "user.overlay.opaque", &mut [0u8; 8][..]).is_ok();
        return format!("d{} {mode:o}", if opaque { "!" } else { "" });
    }
    if kind.is_char_device() && meta.rdev() == 0 {
        return "w".to_owned();
    }
    if kind.is_file() && meta.len() > 4096 {
        return format!("f {mode:o} <{} bytes>", meta.len());
    }
    if kind.is_file() {
        let content = std::fs::read(path).unwrap();
        return format!("f {mode:o} {}", String::from_utf8_lossy(&content)).trim_end().to_owned();
    }
    let letter = if kind.is_fifo() {
        "p".to_owned()
    } else if kind.is_block_device() {
        format!("b {device}")
    } else {
        format!("c {device}")
    };
    format!("{letter} {mode:o}")
}

/// Everything about a tree that an escape could change.
pub fn fingerprint(root: &Path) -> String {
    let mut out = String::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let m = path.symlink_metadata().unwrap();
        let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        out.push_str(&format!(
            "{} {} {:o} {}:{} {} {times:?}\n",
            path.display(),
            m.ino(),
            m.mode(),
            m.uid(),
            m.gid(),
            m.nlink()
        ));
        if m.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).collect();
            names.sort();
            todo.extend(names);
        } else if m.is_file() {
            out.push_str(&format!("{:?}\n", std::fs::read(&path).unwrap()));
        }
    }
    out
}

/// The error and all its causes on one line.
pub fn chain(e: &StorageError) -> String {
    let mut out = e.to_string();
    let mut at: &dyn std::error::Error = e;
    while let Some(next) = at.source() {
        out.push_str(&format!(": {next}"));
        at = next;
    }
    out
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
