//! PAX extended headers: records `LENGTH KEY=VALUE\n` (pax(1), "pax Extended Header").
//!
//! A record that does not fit exactly is an error, never the end of the list: skipping one is how two readers
//! come to see two different archives.

use onggi_sys::fs::Time;

use super::TarErrorKind as E;
use super::header::MAX_ID;
use crate::limits::{MAX_PATH, MAX_SPARSE_SEGMENTS, MAX_XATTR_NAME, MAX_XATTR_VALUE};

/// What one extended header says about the entry that follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    /// Name.
    pub(crate) path: Option<Vec<u8>>,
    /// Link target.
    pub(crate) linkpath: Option<Vec<u8>>,
    /// Stored bytes.
    pub(crate) size: Option<u64>,
    /// Owner.
    pub(crate) uid: Option<u32>,
    /// Group.
    pub(crate) gid: Option<u32>,
    /// Modification time.
    pub(crate) mtime: Option<Time>,
    /// Extended attributes, later ones replacing earlier ones of the same name.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// GNU sparse keys.
    pub(crate) sparse: PaxSparse,
}

/// `GNU.sparse.*` of formats 0.0, 0.1 and 1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PaxSparse {
    /// `major`, `minor`.
    pub(crate) version: (Option<u64>, Option<u64>),
    /// `name`: the real name.
    pub(crate) name: Option<Vec<u8>>,
    /// `size` (0.x) or `realsize` (1.0): the file's length.
    pub(crate) real_size: Option<u64>,
    /// Segments of 0.0 and 0.1.
    pub(crate) map: Vec<(u64, u64)>,
    /// Some sparse key was present.
    pub(crate) present: bool,
    pending: Option<u64>,
}

/// Splits a header into its records.
fn records(mut data: &[u8]) -> Result<Vec<(&str, &[u8])>, E> {
    let mut out = Vec::new();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|b| *b == b' ').ok_or(E::Pax)?;
        let length = decimal(&data[..space]).and_then(|n| usize::try_from(n).ok()).ok_or(E::Pax)?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(E::Pax);
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or(E::Pax)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| E::Pax)?;
        if key.is_empty() || key.contains('\0') {
            return Err(E::Pax);
        }
        out.push((key, &record[equals + 1..]));
        data = &data[length..];
    }
    Ok(out)
}

impl Pax {
    /// Reads an entry's own header (`x`).
    pub(crate) fn parse(data: &[u8]) -> Result<Self, E> {
        let mut pax = Self::default();
        for (key, value) in records(data)? {
            pax.record(key, value)?;
        }
        if pax.sparse.pending.is_some() {
            return Err(E::Sparse("offset without length"));
        }
        Ok(pax)
    }

    fn record(&mut self, key: &str, value: &[u8]) -> Result<(), E> {
        match key {
            "path" => once(&mut self.path, key, path("name", value)?)?,
            "linkpath" => once(&mut self.linkpath, key, path("link target", value)?)?,
            "size" => once(&mut self.size, key, size(value)?)?,
            "uid" if !value.is_empty() => self.uid = Some(id("uid", value)?),
            "gid" if !value.is_empty() => self.gid = Some(id("gid", value)?),
            "mtime" if !value.is_empty() => self.mtime = Some(time(value)?),
            "hdrcharset" if !matches!(value, b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => return Err(E::Pax),
            // star's sparse files, which nothing else here would recognise as sparse.
            "SCHILY.realsize" => return Err(E::Sparse("star's sparse format")),
            _ => {
                if let Some(key) = key.strip_prefix("GNU.sparse.") {
                    self.sparse.present = true;
                    self.sparse.record(key, value)?;
                } else if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.xattr(name.as_bytes(), value)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), E> {
        if name.is_empty() || name.len() > MAX_XATTR_NAME {
            return Err(E::TooLong { what: "extended attribute name", limit: MAX_XATTR_NAME as u64 });
        }
        if value.len() > MAX_XATTR_VALUE {
            return Err(E::TooLong { what: "extended attribute", limit: MAX_XATTR_VALUE as u64 });
        }
        self.xattrs.retain(|(n, _)| n != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

impl PaxSparse {
    fn record(&mut self, key: &str, value: &[u8]) -> Result<(), E> {
        match key {
            "major" => once(&mut self.version.0, key, size(value)?)?,
            "minor" => once(&mut self.version.1, key, size(value)?)?,
            "name" => once(&mut self.name, key, path("name", value)?)?,
            "size" | "realsize" => once(&mut self.real_size, key, size(value)?)?,
            "numblocks" => {}
            "offset" => {
                if self.pending.replace(size(value)?).is_some() {
                    return Err(E::Sparse("offset without length"));
                }
            }
            "numbytes" => {
                let offset = self.pending.take().ok_or(E::Sparse("length without offset"))?;
                self.push(offset, size(value)?)?;
            }
            "map" => {
                let mut numbers = value.split(|b| *b == b',');
                while let Some(offset) = numbers.next() {
                    let length = numbers.next().ok_or(E::Sparse("odd number of values"))?;
                    self.push(size(offset)?, size(length)?)?;
                }
            }
            _ => return Err(E::Sparse("unknown key")),
        }
        Ok(())
    }

    fn push(&mut self, offset: u64, length: u64) -> Result<(), E> {
        if self.map.len() >= MAX_SPARSE_SEGMENTS {
            return Err(E::Sparse("too many segments"));
        }
        self.map.push((offset, length));
        Ok(())
    }
}

/// Checks a global header (`g`) and returns the modification time that it sets, if any.
///
/// GNU tar and Python apply global records to every entry, Go, Docker and libarchive ignore them; so keys that
/// would make them disagree on names, content or owners are refused.
pub(crate) fn global_mtime(data: &[u8]) -> Result<Option<Time>, E> {
    let mut mtime = None;
    for (key, value) in records(data)? {
        let forbidden = matches!(key, "path" | "linkpath" | "size" | "uid" | "gid" | "hdrcharset")
            || key.starts_with("GNU.sparse.")
            || key.starts_with("SCHILY.");
        if forbidden {
            return Err(E::PaxGlobal { key: key.chars().take(64).collect() });
        }
        if key == "mtime" && !value.is_empty() {
            mtime = Some(time(value)?);
        }
    }
    Ok(mtime)
}

fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), E> {
    if slot.replace(value).is_some() { Err(E::PaxKey { key: key.to_owned() }) } else { Ok(()) }
}

fn path(what: &'static str, value: &[u8]) -> Result<Vec<u8>, E> {
    if value.is_empty() {
        return Err(E::PaxKey { key: what.to_owned() });
    }
    check_name(what, value)?;
    Ok(value.to_vec())
}

/// No NUL, not longer than `PATH_MAX`.
pub(crate) fn check_name(what: &'static str, value: &[u8]) -> Result<(), E> {
    if value.contains(&0) {
        return Err(E::Nul { what });
    }
    if value.len() > MAX_PATH {
        return Err(E::TooLong { what, limit: MAX_PATH as u64 });
    }
    Ok(())
}

/// 1 to 19 decimal digits and nothing else.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')))
}

fn size(value: &[u8]) -> Result<u64, E> {
    decimal(value).filter(|n| *n <= i64::MAX as u64).ok_or(E::Number { field: "PAX size" })
}

fn id(field: &'static str, value: &[u8]) -> Result<u32, E> {
    let value = decimal(value).ok_or(E::Number { field })?;
    if i128::from(value) > MAX_ID {
        return Err(E::Range { field, value: value.to_string() });
    }
    Ok(value as u32)
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut.
fn time(value: &[u8]) -> Result<Time, E> {
    let bad = || E::Number { field: "PAX mtime" };
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |b| *b == b'.');
    let whole = parts.next().and_then(decimal).and_then(|n| i64::try_from(n).ok()).ok_or_else(bad)?;
    let nsec = match parts.next() {
        None => 0,
        Some(digits) if digits.iter().all(u8::is_ascii_digit) => {
            (0..9).fold(0, |n, i| n * 10 + digits.get(i).map_or(0, |d| u32::from(d - b'0')))
        }
        Some(_) => return Err(bad()),
    };
    Ok(match (negative, nsec) {
        (false, _) => Time { sec: whole, nsec },
        (true, 0) => Time { sec: -whole, nsec },
        (true, _) => Time { sec: -whole - 1, nsec: 1_000_000_000 - nsec },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_must_fit_exactly() {
        assert_eq!(records(b"11 path=ab\n").unwrap(), [("path", &b"ab"[..])]);
        let bad: [&[u8]; 8] = [
            b"12 path=ab\n",
            b"10 path=ab\n",
            b"11 path=ab\nx",
            b"+11 path=a\n",
            b"11 pathab1\n",
            b"path=ab\n",
            b"0 \n",
            b"11 path=ab\n\0\0",
        ];
        for data in bad {
            assert!(records(data).is_err(), "{data:?}");
        }
    }

    #[test]
    fn times_are_exact_to_the_nanosecond() {
        assert_eq!(time(b"1.5").unwrap(), Time { sec: 1, nsec: 500_000_000 });
        assert_eq!(time(b"1.0000000019").unwrap(), Time { sec: 1, nsec: 1 });
        assert_eq!(time(b"-1.25").unwrap(), Time { sec: -2, nsec: 750_000_000 });
        assert_eq!(time(b"-7").unwrap(), Time { sec: -7, nsec: 0 });
        for bad in [&b""[..], b"-", b".5", b"1.x", b"1e9", b"99999999999999999999"] {
            assert!(time(bad).is_err(), "{bad:?}");
        }
    }
}
