//! `onggi __hold`: holds the terminal of a process that `exec` started and from which the user has detached.

use std::{fs::File, io, os::fd::AsFd as _};

use clap::Args;

use crate::{error::CliError, session};

/// Arguments of `__hold`: the terminal's master is stdin.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {}

impl HoldArgs {
    /// Reads what is written, for nobody, until the process has ended.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let terminal = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        session::copy(terminal, io::sink())?;
        Ok(0)
    }
}
