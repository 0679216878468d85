//! `onggi overlay commit`.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use onggi_engine::{OverlayOf, SaveTo, overlay_layer};
use onggi_primitives::shell;
use serde::Serialize;

use super::stack;
use crate::{
    cli::GlobalArgs,
    commands::{
        explain::{ExplainArg, Plan},
        save::destination,
    },
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
    /// The tar archive that is written; - is standard output, and the digest goes to standard error
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
        let digest = if self.file.as_os_str() == "-" { String::new() } else { format!("sha256sum {file}\n") };
        format!(
            "set -eu\nU={upper}{SCRIPT}tar -C \"$T\" --sort=name --numeric-owner --xattrs --xattrs-exclude='*.overlay.*' -cf {file} .\n{digest}"
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
        let stdout = self.file.as_os_str() == "-";
        let file = match stdout {
            true => self.file,
            false => std::path::absolute(&self.file).map_err(CliError::CurrentDirectory)?,
        };
        let plan = CommitPlan { op: "commit", upper, lower: stack.lower, file };
        if self.explain.shown(&plan)? {
            return Ok(0);
        }
        if stdout {
            return to_stdout(stack.of, &plan);
        }
        let written = write(stack.of, &plan)?;
        render::line(&written)?;
        Ok(0)
    }
}

/// As `save` does: a terminal is no place for an archive.
fn to_stdout(of: OverlayOf, plan: &CommitPlan) -> Result<u8, CliError> {
    let SaveTo::Stream(mut out) = destination(None)? else { return Ok(0) };
    let layer = overlay_layer(of, &plan.upper, &plan.lower, &mut out)?;
    out.flush().map_err(|source| CliError::WriteFile { path: "standard output".to_owned(), source })?;
    render::notes(&[layer.diff_id.as_str().to_owned()])?;
    Ok(0)
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
