//! `onggi overlay …`: overlays by hand, and what is in them.

mod commit;
mod diff;
mod layers;
mod mount;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use onggi_engine::{EngineError, OverlayOf};
use onggi_primitives::{Overlay, overlays};

use crate::{cli::GlobalArgs, error::CliError};

/// `onggi overlay …`.
#[derive(Debug, Subcommand)]
pub(crate) enum OverlayCommand {
    /// Show several directories as one
    Mount(mount::MountArgs),
    /// Take an overlay away; what was written stays in its upper directory
    #[command(visible_alias = "umount")]
    Unmount(mount::UnmountArgs),
    /// Show what was added, changed and deleted, and how overlayfs marks it
    Diff(diff::DiffArgs),
    /// Show which directories are stacked, and how the names of an image's layers are computed
    Layers(layers::LayersArgs),
    /// Write what was changed as a layer of an image
    Commit(commit::CommitArgs),
}

impl OverlayCommand {
    /// Carries out the command.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Mount(args) => args.run(),
            Self::Unmount(args) => args.run(),
            Self::Diff(args) => args.run(global),
            Self::Layers(args) => args.run(global),
            Self::Commit(args) => args.run(global),
        }
    }
}

/// The directories of an overlay.
struct Stack {
    of: OverlayOf,
    lower: Vec<PathBuf>,
    upper: Option<PathBuf>,
}

/// The overlay mounted on a directory, or that of a container.
fn stack(target: &str, global: &GlobalArgs) -> Result<Stack, CliError> {
    if let Some(found) = mounted(Path::new(target))? {
        return Ok(Stack { of: OverlayOf::Mount, lower: found.lower, upper: found.upper });
    }
    if target.contains('/') {
        return Err(nothing(target));
    }
    let steps = match global.engine()?.layer_steps(target) {
        Ok(steps) => steps,
        Err(_) if Path::new(target).is_dir() => return Err(nothing(target)),
        Err(EngineError::NoSuchObject { .. }) => return Err(nothing(target)),
        Err(e) => return Err(e.into()),
    };
    let Some(container) = steps.container else {
        return Err(CliError::usage(
            format!("{target} is an image, whose layers do not change"),
            format!("onggi diff {target} shows what its last layer changed; onggi overlay layers {target} its layers"),
        ));
    };
    Ok(Stack { of: OverlayOf::Container, lower: container.lower, upper: Some(container.upper) })
}

fn nothing(target: &str) -> CliError {
    CliError::usage(
        format!("no overlay is mounted on {target}"),
        "findmnt -t overlay lists those that are; a container is named without a slash",
    )
}

/// The topmost overlay on a directory.
fn mounted(target: &Path) -> Result<Option<Overlay>, CliError> {
    let Ok(target) = target.canonicalize() else { return Ok(None) };
    Ok(overlays()?.into_iter().rfind(|overlay| overlay.target == target))
}
