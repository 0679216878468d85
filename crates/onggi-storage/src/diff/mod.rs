//! The difference of two trees: as a layer's archive, or as a list of changes.
//!
//! In: a new and an old [`Tree`], each a stack of directories as overlayfs stacks them (a container's upper directory over
//! its image's layers against those layers; two images; two plain directories). Out: what an image layer must hold to
//! turn the old tree into the new one ([`write_layer`]), everything ([`write_tree`]), or `A`/`C`/`D` lines ([`changes`]).
//!
//! The layer is the smallest that is right: what was copied up and is the same as below is left out, what is gone is a
//! whiteout, a directory that lost all it had is opaque. Names come in byte order, a directory before its content, so the
//! same trees make the same archive. `redirect` and `metacopy` marks of overlayfs are resolved. Nothing is mounted,
//! no link is followed, no process of the container is asked.
//!
//! Deep trees are bounded by `PATH_MAX`, wide directories by memory for their names; file content is never in memory
//! as a whole.

mod archive;
mod content;
mod dir;
mod node;
mod walk;

use std::io::Write;

pub use archive::Written;
pub use dir::Tree;

use crate::error::Result;
use crate::tar::TarWriter;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// `A`
    Added,
    /// `C`
    Changed,
    /// `D`
    Deleted,
}

/// One line of `diff`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Without leading slash.
    pub path: Vec<u8>,
    /// What happened.
    pub kind: ChangeKind,
}

/// How to look at the new tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiffOptions<'a> {
    /// Paths (without leading slash, sorted) that a start of a container makes as mount points. They are left out where
    /// they are new and empty, and so is the change of the time of the directory that they are in.
    pub stubs: &'a [&'a str],
    /// The old tree is a container's too: its mount points are not missed in the new one.
    pub stubs_in_old: bool,
}

/// Writes the layer that turns `old` into `new`.
///
/// # Errors
/// A tree cannot be read, a path is longer than `PATH_MAX`, or writing failed.
pub fn write_layer<W: Write>(out: W, new: &Tree, old: &Tree, options: DiffOptions<'_>) -> Result<(W, Written)> {
    let mut sink = archive::Archive::new(TarWriter::new(out));
    walk::Walk::new(new, old, options, &mut sink).run()?;
    sink.finish()
}

/// Writes the whole tree: `export`.
///
/// # Errors
/// As [`write_layer`].
pub fn write_tree<W: Write>(out: W, tree: &Tree) -> Result<(W, Written)> {
    write_layer(out, tree, &Tree::empty(), DiffOptions::default())
}

/// What differs, sorted by path as `docker diff` sorts: a directory before what is in it.
///
/// # Errors
/// As [`write_layer`], but for writing.
pub fn changes(new: &Tree, old: &Tree, options: DiffOptions<'_>) -> Result<Vec<Change>> {
    let mut sink = Vec::new();
    walk::Walk::new(new, old, options, &mut sink).run()?;
    Ok(sink)
}
