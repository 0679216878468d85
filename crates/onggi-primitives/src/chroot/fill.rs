//! Which files go into a directory, in which order.

use std::path::{Path, PathBuf};

use super::RootOp;

/// Something of this machine that the directory gets at the same path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is, here and there.
    pub path: PathBuf,
    /// What it is.
    pub kind: SourceKind,
    /// Other names by which programs look it up, where links lead from those to the path.
    pub named: Vec<PathBuf>,
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory, without what is in it.
    Directory {
        /// Its permissions.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: PathBuf,
    },
    /// A file.
    File,
}

/// Links and directories first. A directory that is there where this machine has a link (`/lib`) stays, and then the
/// names by which programs look files up are copied too.
pub(super) fn ops(root: &Path, sources: &[Source]) -> Vec<RootOp> {
    let root = || root.to_owned();
    let mut ops = Vec::new();
    for source in sources.iter().filter(|s| s.path != Path::new("/")) {
        let path = source.path.clone();
        ops.push(match &source.kind {
            SourceKind::Directory { mode } => RootOp::Directory { root: root(), path, mode: *mode },
            SourceKind::Link { target } => RootOp::Link { root: root(), path, target: target.clone() },
            SourceKind::File => RootOp::Copy { root: root(), from: path.clone(), path },
        });
    }
    // After every link is there.
    for source in sources {
        for named in source.named.clone() {
            ops.push(RootOp::Copy { root: root(), from: source.path.clone(), path: named });
        }
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_links_lead_from_is_copied_last() {
        let file = Source { path: "/usr/lib/l".into(), kind: SourceKind::File, named: vec!["/lib/l".into()] };
        let link =
            Source { path: "/lib".into(), kind: SourceKind::Link { target: "usr/lib".into() }, named: Vec::new() };
        let ops = ops(Path::new("/jar"), &[link, file]);
        let copy = |path: &str| RootOp::Copy { root: "/jar".into(), from: "/usr/lib/l".into(), path: path.into() };
        let link = RootOp::Link { root: "/jar".into(), path: "/lib".into(), target: "usr/lib".into() };
        assert_eq!(ops, [link, copy("/usr/lib/l"), copy("/lib/l")]);
    }
}
