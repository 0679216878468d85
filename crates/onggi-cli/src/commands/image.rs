//! `onggi image …`.

use clap::Subcommand;

use super::{
    copy, diff, from_binary, history, image_mount, images, import, inspect, load, manage, pull, push, referrers, rmi,
    save, search, system, tag,
};
use crate::{cli::GlobalArgs, error::CliError};

/// `onggi image …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::ImagesArgs),
    /// Fetch an image from a registry
    Pull(pull::PullArgs),
    /// Send an image to a registry
    Push(push::PushArgs),
    /// List signatures, attestations and the like that refer to an image
    Referrers(referrers::ReferrersArgs),
    /// Look for images in registries
    Search(search::SearchArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(rmi::RmiArgs),
    /// Give an image a further name
    Tag(tag::TagArgs),
    /// Remove images that are not used
    Prune(system::ImagePruneArgs),
    /// Show everything about images as JSON
    Inspect(inspect::NamedInspectArgs),
    /// Write images to an archive
    Save(save::SaveArgs),
    /// Read images from an archive
    Load(load::LoadArgs),
    /// Make an image of a root filesystem's archive
    Import(import::ImportArgs),
    /// Show the steps that an image was made by
    History(history::HistoryArgs),
    /// Show how two images differ
    Diff(diff::DiffArgs),
    /// Copy an image between registries, the store, archives and directories
    #[command(visible_alias = "cp")]
    Copy(copy::CopyArgs),
    /// Make a minimal image of programs of this machine
    FromBinary(from_binary::FromBinaryArgs),
    /// Show the files of an image in a directory, read-only
    Mount(image_mount::MountArgs),
    /// Take away what `image mount` made
    #[command(visible_alias = "umount")]
    Unmount(image_mount::UnmountArgs),
    /// List mounted images
    Mounts(image_mount::MountsArgs),
    /// Show the layers of an image
    Tree(manage::TreeArgs),
    /// Take names away from an image
    Untag(manage::UntagArgs),
    /// Tell by the exit code whether an image is stored
    Exists(manage::ExistsArgs),
}

impl ImageCommand {
    /// Runs the verb.
    pub(crate) fn dispatch(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Ls(args) => args.run(global),
            Self::Pull(args) => args.run(global),
            Self::Push(args) => args.run(global),
            Self::Referrers(args) => args.run(global),
            Self::Search(args) => args.run(global),
            Self::Rm(args) => args.run(global),
            Self::Tag(args) => args.run(global),
            Self::Prune(args) => args.run(global),
            Self::Inspect(args) => args.run(global, inspect::Kind::Image),
            Self::Save(args) => args.run(global),
            Self::Load(args) => args.run(global),
            Self::Import(args) => args.run(global),
            Self::History(args) => args.run(global),
            Self::Diff(args) => args.run(global),
            Self::Copy(args) => args.run(global),
            Self::FromBinary(args) => args.run(global),
            Self::Mount(args) => args.run(global),
            Self::Unmount(args) => args.run(global),
            Self::Mounts(args) => args.run(global),
            Self::Tree(args) => args.run(global),
            Self::Untag(args) => args.run(global),
            Self::Exists(args) => args.run(global),
        }
    }
}
