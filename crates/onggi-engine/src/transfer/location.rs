//! `copy`'s places: `docker://busybox`, `onggi:name`, `oci:dir:tag`, `docker-archive:file:name:tag`, `dir:dir`.

use std::{path::PathBuf, str::FromStr};

use onggi_spec::ImageReference;

use super::FormatError;

/// A place that images come from or go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A registry.
    Registry(ImageReference),
    /// The store: a name or an id.
    Store(String),
    /// A directory with an OCI layout, and a tag in it.
    OciDir(PathBuf, Option<String>),
    /// An archive of one.
    OciArchive(PathBuf, Option<String>),
    /// An archive of `docker save`, and a reference in it.
    DockerArchive(PathBuf, Option<String>),
    /// A directory with one image.
    Dir(PathBuf),
}

impl FromStr for Location {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        let bad = |reason| FormatError::Location { text: text.to_owned(), reason };
        let Some((kind, rest)) = text.split_once(':') else { return store(text, text) };
        if rest.is_empty() {
            return Err(bad("nothing follows the colon"));
        }
        Ok(match kind {
            "docker" => {
                let reference = rest.strip_prefix("//").ok_or_else(|| bad("a registry is docker://REFERENCE"))?;
                Self::Registry(reference.parse().map_err(|_| bad("what follows docker:// is no reference"))?)
            }
            "onggi" => return store(rest, text),
            "containers-storage" => return Err(bad("the store of other programs is not read")),
            "docker-daemon" => return Err(bad("a daemon's store is not read; use docker save and docker-archive:")),
            "oci" => with_tag(rest, Self::OciDir),
            "oci-archive" => with_tag(rest, Self::OciArchive),
            "docker-archive" => with_tag(rest, Self::DockerArchive),
            "dir" => Self::Dir(rest.into()),
            _ => return store(text, text),
        })
    }
}

/// A name or an id of the store.
fn store(name: &str, text: &str) -> Result<Location, FormatError> {
    let bad = |reason| FormatError::Location { text: text.to_owned(), reason };
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let id = hex.len() >= 4 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if id || name.parse::<ImageReference>().is_ok() {
        return Ok(Location::Store(name.to_owned()));
    }
    Err(bad("it is neither one of them nor the name of an image"))
}

/// The path ends at the first colon, as with skopeo.
fn with_tag(rest: &str, make: impl FnOnce(PathBuf, Option<String>) -> Location) -> Location {
    match rest.split_once(':') {
        Some((path, tag)) if !tag.is_empty() => make(path.into(), Some(tag.to_owned())),
        Some((path, _)) => make(path.into(), None),
        None => make(rest.into(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_for_skopeo() {
        let registry = |text: &str| Location::Registry(text.parse().unwrap());
        for (text, want) in [
            ("docker://127.0.0.1:5000/a/b:t", registry("127.0.0.1:5000/a/b:t")),
            ("docker://busybox", registry("busybox")),
            ("busybox", Location::Store("busybox".into())),
            ("busybox:1", Location::Store("busybox:1".into())),
            ("onggi:busybox:1", Location::Store("busybox:1".into())),
            ("127.0.0.1:5000/x", Location::Store("127.0.0.1:5000/x".into())),
            ("3f4a9c", Location::Store("3f4a9c".into())),
            ("oci:/a/b", Location::OciDir("/a/b".into(), None)),
            ("oci:/a/b:v1", Location::OciDir("/a/b".into(), Some("v1".into()))),
            ("oci-archive:a.tar:x:1", Location::OciArchive("a.tar".into(), Some("x:1".into()))),
            ("docker-archive:a.tar:busybox:1", Location::DockerArchive("a.tar".into(), Some("busybox:1".into()))),
            ("dir:/d", Location::Dir("/d".into())),
        ] {
            assert_eq!(text.parse::<Location>().unwrap(), want, "{text}");
        }
        for bad in ["docker:busybox", "oci:", "Docker://x", "docker-daemon:x", "containers-storage:x", "docker://", ""]
        {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
