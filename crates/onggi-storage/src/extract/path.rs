//! Names of entries: checked once, then trusted.

use crate::error::EntryProblem;
use crate::limits::MAX_NAME;

/// Prefix of a whiteout's name (image-spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// Name of the marker that hides everything below.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept at the root of its branches; old Docker images still carry it and every engine skips it.
const AUFS: [&[u8]; 3] = [b".wh..wh.plnk", b".wh..wh.aufs", b".wh..wh.orph"];

/// A name below the layer's root: no empty, `.` or `..` component, no leading or trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryPath {
    bytes: Vec<u8>,
    name_at: usize,
}

/// What a name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The root of the layer itself (`/`, `.`, `./`).
    Root,
    /// An ordinary entry.
    Plain(EntryPath),
    /// `dir/.wh.name`: hide `dir/name` of the layers below.
    Whiteout(EntryPath),
    /// `dir/.wh..wh..opq`: hide everything that layers below have in `dir` (empty for the root).
    Opaque(Vec<u8>),
    /// Nothing to unpack.
    Skip,
}

impl EntryPath {
    /// Strips leading slashes (an absolute name is meant in-root) and normalises. `None` for the root itself.
    /// `parent` is the problem to report for a `..`.
    pub(crate) fn parse(raw: &[u8], parent: EntryProblem) -> Result<Option<Self>, EntryProblem> {
        let mut bytes = Vec::with_capacity(raw.len());
        let mut name_at = 0;
        for component in raw.split(|b| *b == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(parent),
                _ if component.len() > MAX_NAME => return Err(EntryProblem::NameTooLong),
                _ => {}
            }
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            name_at = bytes.len();
            bytes.extend_from_slice(component);
        }
        Ok((!bytes.is_empty()).then_some(Self { bytes, name_at }))
    }

    /// All of it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The directory part; empty for an entry of the root.
    pub(crate) fn parent(&self) -> &[u8] {
        &self.bytes[..self.name_at.saturating_sub(1)]
    }

    /// The last component.
    pub(crate) fn name(&self) -> &[u8] {
        &self.bytes[self.name_at..]
    }

    fn renamed(&self, name: &[u8]) -> Self {
        Self { bytes: [&self.bytes[..self.name_at], name].concat(), name_at: self.name_at }
    }
}

impl Target {
    /// Reads an entry's name.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, EntryProblem> {
        let Some(path) = EntryPath::parse(raw, EntryProblem::ParentInName)? else {
            return Ok(Self::Root);
        };
        let first = path.bytes.split(|b| *b == b'/').next().unwrap_or_default();
        if AUFS.contains(&first) {
            return Ok(Self::Skip);
        }
        if path.parent().split(|b| *b == b'/').any(|c| c.starts_with(WHITEOUT)) {
            return Err(EntryProblem::ReservedName);
        }
        if path.name() == OPAQUE {
            return Ok(Self::Opaque(path.parent().to_vec()));
        }
        match path.name().strip_prefix(WHITEOUT) {
            None => Ok(Self::Plain(path)),
            Some(b"" | b"." | b"..") => Err(EntryProblem::BadWhiteout),
            Some(hidden) if hidden.starts_with(WHITEOUT) => Err(EntryProblem::ReservedName),
            Some(hidden) => Ok(Self::Whiteout(path.renamed(hidden))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(raw: &str) -> Option<String> {
        match Target::parse(raw.as_bytes()) {
            Ok(Target::Plain(p)) => Some(String::from_utf8(p.bytes).unwrap()),
            _ => None,
        }
    }

    #[test]
    fn names_are_normalised_below_the_root() {
        assert_eq!(plain("./a/b/").as_deref(), Some("a/b"));
        assert_eq!(plain("//a///b/./c").as_deref(), Some("a/b/c"));
        assert_eq!(plain("a..b/...").as_deref(), Some("a..b/..."));
        for root in ["/", ".", "./", "//.//"] {
            assert_eq!(Target::parse(root.as_bytes()), Ok(Target::Root), "{root}");
        }
    }

    #[test]
    fn parent_components_are_refused_everywhere() {
        for bad in ["..", "../a", "a/..", "a/../b", "/..", "./../x"] {
            assert_eq!(Target::parse(bad.as_bytes()), Err(EntryProblem::ParentInName), "{bad}");
        }
    }

    #[test]
    fn whiteouts_are_told_from_ordinary_names() {
        let Ok(Target::Whiteout(p)) = Target::parse(b"a/.wh.b") else { panic!("no whiteout") };
        assert_eq!((p.parent(), p.name(), p.as_bytes()), (&b"a"[..], &b"b"[..], &b"a/b"[..]));
        assert_eq!(Target::parse(b"a/.wh..wh..opq"), Ok(Target::Opaque(b"a".to_vec())));
        assert_eq!(Target::parse(b".wh..wh.plnk/123.4"), Ok(Target::Skip));
        for bad in [".wh.", "a/.wh..", "a/.wh..."] {
            assert_eq!(Target::parse(bad.as_bytes()), Err(EntryProblem::BadWhiteout), "{bad}");
        }
        for bad in [".wh.a/b", "x/.wh..wh.y", "a/.wh..wh..opq/x"] {
            assert_eq!(Target::parse(bad.as_bytes()), Err(EntryProblem::ReservedName), "{bad}");
        }
        assert_eq!(plain(".whale").as_deref(), Some(".whale"));
    }
}
