//! `onggi overlay mount` and `unmount`.

use std::path::{Path, PathBuf};

use clap::Args;
use onggi_primitives::{OverlayFacts, OverlayPlan, OverlayRequest};

use crate::{commands::explain::ExplainArg, error::CliError};

/// Arguments of `overlay mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// A directory below, the topmost first; may be repeated, or several between colons
    #[arg(short, long, required = true, value_name = "DIR[:DIR…]")]
    lower: Vec<String>,
    /// The directory that gets the changes; nothing can be written without it
    #[arg(short, long, value_name = "DIR")]
    upper: Option<PathBuf>,
    /// An empty directory on the upper one's filesystem, for the kernel [default: the upper one's name with .work]
    #[arg(short, long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Nothing can be written through the overlay
    #[arg(short, long, visible_alias = "ro")]
    read_only: bool,
    /// An option of overlayfs: redirect_dir=on, index=on, metacopy=on, volatile, userxattr, …; may be repeated
    #[arg(short, long, value_name = "OPTION", value_delimiter = ',')]
    option: Vec<String>,
    #[command(flatten)]
    explain: ExplainArg,
    /// Where it is seen
    target: PathBuf,
}

/// Arguments of `overlay unmount`.
#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Also while it is in use: it is unseen now, and gone later
    #[arg(short, long)]
    lazy: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Where it is seen
    target: PathBuf,
}

impl MountArgs {
    /// Mounts it; the same again is done already.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let upper = self.upper.as_deref().map(absolute).transpose()?;
        let beside = || {
            let mut name = upper.clone()?.into_os_string();
            name.push(".work");
            Some(PathBuf::from(name))
        };
        let work = self.work.as_deref().map(absolute).transpose()?.or_else(beside);
        let mut lower = Vec::new();
        for text in &self.lower {
            lower.extend(split(text)?);
        }
        let request = OverlayRequest {
            target: absolute(&self.target)?,
            lower,
            upper,
            work,
            read_only: self.read_only,
            options: self.option,
        };
        let plan = OverlayPlan::mount(&request, &OverlayFacts::gather(&request)?)?;
        if !self.explain.shown(&plan)? {
            plan.apply()?;
        }
        Ok(0)
    }
}

impl UnmountArgs {
    /// Unmounts it; where nothing is mounted that is done already.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let target = absolute(&self.target)?;
        let request = OverlayRequest { target: target.clone(), ..OverlayRequest::default() };
        let plan = OverlayPlan::unmount(&target, self.lazy, &OverlayFacts::gather(&request)?)?;
        if !self.explain.shown(&plan)? {
            plan.apply()?;
        }
        Ok(0)
    }
}

/// One directory whose name has colons, or several.
fn split(text: &str) -> Result<Vec<PathBuf>, CliError> {
    let one = Path::new(text);
    if one.is_dir() || !text.contains(':') {
        return Ok(vec![absolute(one)?]);
    }
    text.split(':').map(|dir| absolute(Path::new(dir))).collect()
}

/// Without links where it exists: so the mount table has it.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    if path.as_os_str().is_empty() {
        return Err(CliError::usage(
            "an empty text names no directory",
            "name each directory, or leave its option out",
        ));
    }
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    let path = std::path::absolute(path).map_err(CliError::CurrentDirectory)?;
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    Ok(match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path,
    })
}
