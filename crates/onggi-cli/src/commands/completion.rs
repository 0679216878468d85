//! `onggi completion`: the script that makes a shell complete commands, options and names.

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use crate::{candidates, error::CliError, render};

/// Name of the program, which the script also calls.
const PROGRAM: &str = "onggi";

/// Arguments of `completion`.
#[derive(Debug, Args)]
#[command(after_help = "\
bash   source <(onggi completion bash)        in ~/.bashrc
zsh    source <(onggi completion zsh)         in ~/.zshrc, after compinit
fish   onggi completion fish | source         in ~/.config/fish/config.fish")]
pub(crate) struct CompletionArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl CompletionArgs {
    /// Prints the script.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        let shell: &dyn EnvCompleter = match self.shell {
            Shell::Bash => &Bash,
            Shell::Zsh => &Zsh,
            Shell::Fish => &Fish,
        };
        let mut script = Vec::new();
        shell.write_registration(candidates::VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
        render::stdout(&String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}
