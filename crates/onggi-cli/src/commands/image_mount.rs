//! `onggi image mount`, `unmount`, `mounts`.

use std::path::PathBuf;

use clap::Args;
use onggi_engine::ImageMount;
use serde_json::{Value, json};

use super::{explain::ExplainArg, for_each};
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{
        self,
        format::{self, Columns},
    },
};

const COLUMNS: Columns = Columns {
    headers: &[
        ("ID", "IMAGE ID"),
        ("Repositories", "IMAGE"),
        ("Users", "USERS"),
        ("Mountpoint", "MOUNT POINT"),
        ("Here", "HERE"),
    ],
    default: "{{.ID}}\t{{.Repositories}}\t{{.Users}}\t{{.Mountpoint}}",
};

/// Arguments of `image mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Name or id; without one, what is mounted is listed
    image: Option<String>,
    /// Directory to mount on [default: one in the run root, whose path is printed]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl MountArgs {
    /// Mounts and prints where.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let Some(image) = self.image else {
            return MountsArgs { format: None, quiet: false, no_trunc: false }.run(global);
        };
        let dir = self.dir.map(std::path::absolute).transpose().map_err(CliError::CurrentDirectory)?;
        let engine = global.engine()?;
        if self.explain.explain.is_some() {
            self.explain.shown(&engine.explain_mount_image(&image, dir.as_deref())?)?;
            return Ok(0);
        }
        render::line(&engine.mount_image(&image, dir.as_deref())?.to_string_lossy())?;
        Ok(0)
    }
}

/// Arguments of `image unmount`.
#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Every mounted image of this mount namespace
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
    /// For all of its users at once, and also while its files are in use
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Names, ids, or the directories that they are mounted on
    #[arg(required_unless_present = "all", value_name = "IMAGE|DIR")]
    images: Vec<String>,
}

impl UnmountArgs {
    /// Unmounts each and prints the image's id.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let names = match self.all {
            true => engine
                .image_mounts()?
                .iter()
                .filter(|mount| mount.here)
                .map(|mount| mount.path.to_string_lossy().into_owned())
                .collect(),
            false => self.images,
        };
        if self.explain.explain.is_some() {
            for name in &names {
                self.explain.shown(&engine.explain_unmount_image(name, self.force)?)?;
            }
            return Ok(0);
        }
        for_each(&names, |name| Ok(engine.unmount_image(name, self.force)?.to_string()))
    }
}

/// Arguments of `image mounts`.
#[derive(Debug, Args)]
pub(crate) struct MountsArgs {
    /// Template, `json`, or `table TEMPLATE`
    #[arg(long)]
    format: Option<String>,
    /// Only the directories
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
}

impl MountsArgs {
    /// Prints the list.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let mounts = global.engine()?.image_mounts()?;
        let rows: Vec<Value> = mounts.iter().map(|mount| row(mount, self.no_trunc)).collect();
        let format = if self.quiet { Some("{{.Mountpoint}}") } else { self.format.as_deref() };
        render::stdout(&format::rows(format, &COLUMNS, &rows)?)?;
        Ok(0)
    }
}

fn row(mount: &ImageMount, whole: bool) -> Value {
    let id = if whole { mount.image.to_string() } else { mount.image.short().to_owned() };
    let names = if mount.names.is_empty() { "<none>".to_owned() } else { mount.names.join(", ") };
    json!({
        "ID": id,
        "Repositories": names,
        "Users": mount.users,
        "Mountpoint": mount.path,
        "Here": mount.here,
    })
}
