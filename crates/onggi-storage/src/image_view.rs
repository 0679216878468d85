//! An image's files without a container: which directories show them.
//!
//! Nothing is mounted here.

use std::path::PathBuf;

use onggi_spec::Digest;

use crate::error::Result;
use crate::layers::Layers;
use crate::snapshot::stack;

/// How the files of an image are seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageView {
    /// Through overlayfs over these directories, topmost first; none for an image without layers.
    Layers(Vec<PathBuf>),
    /// In this directory, as they are.
    Tree(PathBuf),
}

/// The view of an image. `chain_ids`: bottom first.
///
/// # Errors
/// A layer is missing.
pub fn image_view(layers: &Layers, chain_ids: &[Digest]) -> Result<ImageView> {
    Ok(layers.driver().image(&stack(layers, chain_ids)?))
}
