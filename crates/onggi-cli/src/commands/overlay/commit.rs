//! `onggi overlay commit`.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use onggi_engine::{OverlayOf, overlay_layer};
use onggi_primitives::shell;
use serde::Serialize;

use super::stack;
use crate::{
    cli::GlobalArgs,
    commands::explain::{ExplainArg, Plan},
    error::CliError,
    render,
};

/// Arguments of `overlay commit`.
#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Where an overlay is mounted, or a container
    #[arg(value_name = "TARGET|CONTAINER")]
    target: String,
    /// The tar archive that is written
    file: PathBuf,
}

/// What is done.
#[derive(Debug, Serialize)]
struct CommitPlan {
    op: &'static str,
    upper: PathBuf,
    lower: Vec<PathBuf>,
    file: PathBuf,
}

/// By hand: a copy of the upper directory in which marks become files, as the image specification writes them.
const SCRIPT: &str = r#"
T=$(mktemp -d); trap 'rm -rf "$T"' EXIT
cp -a "$U/." "$T"
find "$T" -type d | while read -r d; do
  case $(getfattr --absolute-names --only-values -n trusted.overlay.opaque "$d" 2>/dev/null) in y) : > "$d/.wh..wh..opq";; esac
done
find "$T" -type c | while read -r f; do
  if [ "$(stat -c %t:%T "$f")" = 0:0 ]; then rm "$f"; : > "$(dirname "$f")/.wh.$(basename "$f")"; fi
done
"#;

impl Plan for CommitPlan {
    fn words(&self) -> String {
        format!(
            "read {} beside what is below it\n\
             write each new or changed file to {}; a whiteout NAME becomes .wh.NAME, an opaque directory gets .wh..wh..opq\n\
             sha256 of the archive is the layer's DiffID\n",
            self.upper.display(),
            self.file.display()
        )
    }

    fn shell(&self) -> String {
        let (upper, file) = (shell::path(&self.upper), shell::path(&self.file));
        format!(
            "set -eu\nU={upper}{SCRIPT}tar -C \"$T\" --sort=name --numeric-owner --xattrs --xattrs-exclude='*.overlay.*' -cf {file} .\n\
             sha256sum {file}\n"
        )
    }

    fn json(&self) -> Result<serde_json::Value, CliError> {
        Ok(serde_json::to_value(self)?)
    }
}

impl CommitArgs {
    /// Writes the archive and prints its digest.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let stack = stack(&self.target, global)?;
        let Some(upper) = stack.upper else {
            return Err(CliError::usage(
                format!("{} has no upper directory: nothing was changed through it", self.target),
                "mount it with --upper and --work to change something",
            ));
        };
        let file = std::path::absolute(&self.file).map_err(CliError::CurrentDirectory)?;
        let plan = CommitPlan { op: "commit", upper, lower: stack.lower, file };
        if self.explain.shown(&plan)? {
            return Ok(0);
        }
        let written = write(stack.of, &plan)?;
        render::line(&written)?;
        Ok(0)
    }
}

/// Beside its name first: a half archive has never the name of a whole one.
fn write(of: OverlayOf, plan: &CommitPlan) -> Result<String, CliError> {
    let mut name = plan.file.clone().into_os_string();
    name.push(".part");
    let part = PathBuf::from(name);
    let done = write_to(of, plan, &part);
    if done.is_err() {
        // What is left of it would be taken for an archive.
        let _ = fs::remove_file(&part);
    }
    done
}

fn write_to(of: OverlayOf, plan: &CommitPlan, part: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::WriteFile { path: part.display().to_string(), source };
    let mut out = BufWriter::new(File::create(part).map_err(failed)?);
    let layer = overlay_layer(of, &plan.upper, &plan.lower, &mut out)?;
    out.flush().map_err(failed)?;
    fs::rename(part, &plan.file)
        .map_err(|source| CliError::WriteFile { path: plan.file.display().to_string(), source })?;
    Ok(layer.diff_id.as_str().to_owned())
}
