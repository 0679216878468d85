//! `onggi create`.

use clap::Args;
use onggi_engine::IdFile;

use super::explain::ExplainArg;
use crate::{
    cli::GlobalArgs,
    error::CliError,
    render::{self, progress::Draw},
    request::{Caller, ContainerArgs, qualify},
};

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    explain: ExplainArg,
    #[command(flatten)]
    container: ContainerArgs,
}

impl CreateArgs {
    /// Makes a container and prints its id.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let pull = self.container.pull.options()?;
        let name = self.container.image_and_command.first().cloned().unwrap_or_default();
        let cidfile = self.container.cidfile.clone();
        let mut request = self.container.request(&Caller::of_process()?)?;
        let engine = global.engine()?;
        qualify(&engine, &name, &mut request, &pull)?;
        if let Some(code) = self.explain.show(|| Ok(vec![engine.explain_create(&request)?]))? {
            return Ok(code);
        }
        let id_file = cidfile.as_deref().map(IdFile::reserve).transpose()?;
        let record = engine.create(&request, &pull, &Draw::new())?;
        id_file.map_or(Ok(()), |file| file.write(&record.id))?;
        render::line(record.id.as_str())?;
        Ok(0)
    }
}
