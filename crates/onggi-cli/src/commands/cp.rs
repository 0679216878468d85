//! `onggi cp`.

use std::io::{self, IsTerminal as _, Write as _};

use clap::{Args, ValueHint};
use onggi_engine::{CopyPlace, CpOptions, CpReport, EngineError};
use onggi_spec::quantity::human_size;

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError, render};

/// Arguments of `cp`.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Keep the numbers of owners and groups, set-user-ID bits, and devices
    #[arg(short, long)]
    archive: bool,
    /// Copy what SRC leads to where it is a symbolic link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say what was copied
    #[arg(short, long)]
    quiet: bool,
    /// PATH, CONTAINER:PATH, or - for a tar archive on standard input; PATH/. is what is in a directory
    #[arg(value_name = "SRC", value_hint = ValueHint::AnyPath)]
    from: String,
    /// The same; - is a tar archive on standard output
    #[arg(value_name = "DEST", value_hint = ValueHint::AnyPath)]
    to: String,
}

impl CpArgs {
    /// Copies, and says how much on stderr, as Docker.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let place = |text: &str| text.parse::<CopyPlace>().map_err(EngineError::from);
        let (from, to) = (place(&self.from)?, place(&self.to)?);
        let base = std::env::current_dir().map_err(CliError::CurrentDirectory)?;
        let options = CpOptions { archive: self.archive, follow_link: self.follow_link };
        let engine = global.engine()?;
        if let Some(code) = self.explain.show(|| Ok(vec![engine.explain_cp(&from, &to)?]))? {
            return Ok(code);
        }
        let report = match (&from, &to) {
            (CopyPlace::Container { container, path }, CopyPlace::Local(local)) => {
                engine.cp_out((container, path), local, &base, options)?
            }
            (CopyPlace::Local(local), CopyPlace::Container { container, path }) => {
                engine.cp_in(local, &base, (container, path), options)?
            }
            (CopyPlace::Container { container, path }, CopyPlace::Stream) => {
                if io::stdout().is_terminal() {
                    return Err(CliError::usage("an archive is not written to a terminal", "redirect it: > FILE.tar"));
                }
                render::readable()?;
                let report = engine.cp_archive((container, path), io::stdout(), options)?;
                return said(&report, None);
            }
            (CopyPlace::Stream, CopyPlace::Container { container, path }) => {
                if io::stdin().is_terminal() {
                    return Err(CliError::usage("an archive is not read from a terminal", "redirect it: < FILE.tar"));
                }
                engine.cp_unpack(io::stdin(), (container, path))?
            }
            (CopyPlace::Container { .. }, CopyPlace::Container { .. }) => {
                return Err(CliError::usage(
                    "copying between containers is not possible",
                    "copy through an archive: onggi cp ONE:PATH - | onggi cp - OTHER:DIR",
                ));
            }
            _ => return Err(CliError::usage("neither side is in a container", "write one of them as CONTAINER:PATH")),
        };
        said(&report, (!self.quiet).then_some(&self.to))
    }
}

fn said(report: &CpReport, to: Option<&String>) -> Result<u8, CliError> {
    render::notes(&report.notes)?;
    if let Some(to) = to {
        io::stderr().write_all(format!("Successfully copied {} to {to}\n", human_size(report.bytes)).as_bytes())?;
    }
    Ok(0)
}
