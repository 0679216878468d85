//! Overlays that are mounted, as mountinfo shows them (proc_pid_mountinfo(5)).

use std::{
    fs,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::PrimitiveError;

/// A mounted overlay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Overlay {
    /// Where it is seen.
    pub target: PathBuf,
    /// What is below, topmost first. As it was written when it was mounted: perhaps relative to somewhere.
    pub lower: Vec<PathBuf>,
    /// Where changes go.
    pub upper: Option<PathBuf>,
    /// The kernel's own directory.
    pub work: Option<PathBuf>,
    /// The other options.
    pub options: Vec<String>,
    /// The mount cannot be written.
    pub read_only: bool,
}

/// Every overlay of this mount namespace, in the order of the mount table.
///
/// # Errors
/// The mount table cannot be read.
pub fn overlays() -> Result<Vec<Overlay>, PrimitiveError> {
    Ok(table()?.lines().filter_map(overlay).collect())
}

/// The filesystem of the topmost mount on a path.
pub(super) fn filesystem_on(path: &Path) -> Result<Option<String>, PrimitiveError> {
    let of = |line: &str| {
        let (fields, rest) = line.split_once(" - ")?;
        let point = bytes(fields.split(' ').nth(4)?);
        (point == path).then(|| rest.split(' ').next().unwrap_or_default().to_owned())
    };
    Ok(table()?.lines().filter_map(of).next_back())
}

fn table() -> Result<String, PrimitiveError> {
    let path = PathBuf::from("/proc/self/mountinfo");
    let bytes = fs::read(&path).map_err(|source| PrimitiveError::Read { path, source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn overlay(line: &str) -> Option<Overlay> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut rest = rest.split(' ');
    if rest.next() != Some("overlay") {
        return None;
    }
    let mut fields = fields.split(' ').skip(4);
    let (point, flags) = (fields.next()?, fields.next()?);
    let mut found =
        Overlay { target: bytes(point), read_only: flags.split(',').any(|flag| flag == "ro"), ..Overlay::default() };
    for option in rest.nth(1).unwrap_or_default().split(',') {
        match option.split_once('=') {
            Some(("lowerdir", value)) => found.lower = split(&raw(value)),
            Some(("lowerdir+" | "datadir+", value)) => found.lower.push(bytes(value)),
            Some(("upperdir", value)) => found.upper = Some(bytes(value)),
            Some(("workdir", value)) => found.work = Some(bytes(value)),
            _ if matches!(option, "rw" | "ro") => {}
            _ => found.options.push(option.to_owned()),
        }
    }
    Some(found)
}

/// `lowerdir=`: between colons, after a backslash a character means itself. `::` begins layers of data alone.
fn split(text: &[u8]) -> Vec<PathBuf> {
    let mut all = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match (byte, all.last_mut()) {
            (b':', _) => all.push(Vec::new()),
            (b'\\', Some(last)) => last.extend(bytes.next()),
            (byte, Some(last)) => last.push(*byte),
            (_, None) => {}
        }
    }
    all.into_iter().filter(|path| !path.is_empty()).map(to_path).collect()
}

fn bytes(field: &str) -> PathBuf {
    to_path(raw(field))
}

fn to_path(bytes: Vec<u8>) -> PathBuf {
    std::ffi::OsString::from_vec(bytes).into()
}

/// The table writes what would confuse it as three octal digits.
fn raw(field: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits.map(|d| d.iter().fold(0u32, |n, b| n * 8 + u32::from(b - b'0'))) {
            Some(byte) if byte < 256 => {
                out.push(byte as u8);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_lower_directories_are_read() {
        let old = r"1 2 0:50 / /m\040x rw,relatime - overlay overlay rw,lowerdir=/a\134:b:/c,upperdir=/u\054v,workdir=/w,xino=off";
        let found = overlay(old).expect("it is one");
        assert_eq!((found.target, found.lower), ("/m x".into(), vec!["/a:b".into(), "/c".into()]));
        assert_eq!((found.upper, found.work), (Some("/u,v".into()), Some("/w".into())));
        assert_eq!(found.options, ["xino=off"]);
        let new = r"1 2 0:50 / /m ro - overlay none ro,lowerdir+=/a:b,lowerdir+=/c";
        let found = overlay(new).expect("it is one");
        assert_eq!((found.lower, found.read_only), (vec!["/a:b".into(), "/c".into()], true));
        assert_eq!(overlay("1 2 0:5 / /m rw - tmpfs tmpfs rw"), None);
    }
}
