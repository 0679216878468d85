//! `onggi man`: the manual pages, made from the same tree as the help, so that both always agree with the program.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use clap_mangen::Man;

use crate::{cli, error::CliError, render};

/// What the page of the whole program says besides.
const GENERAL: &str = "\
EXIT STATUS: 125 the engine or its arguments failed; 126 a command cannot be invoked; 127 it was not found; otherwise \
that of the command; 128+n when signal n ended it.

FILES: /etc/onggi/onggi.toml and ~/.config/onggi/onggi.toml (settings); /var/lib/onggi, $XDG_DATA_HOME/onggi (images and \
containers); /run/onggi, $XDG_RUNTIME_DIR/onggi (what must not outlive a reboot).";

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "Read one: onggi man run | man -l -")]
pub(crate) struct ManArgs {
    /// Write all pages into this directory, as COMMAND.1
    #[arg(long, value_name = "DIR", conflicts_with = "words")]
    to: Option<PathBuf>,
    /// Print the page of this command; of the whole program when there is none
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
}

impl ManArgs {
    /// Prints one page or writes all.
    pub(crate) fn run(self) -> Result<u8, CliError> {
        match &self.to {
            Some(dir) => write_all(dir)?,
            None => {
                let page = page(&find(&self.words)?)?;
                render::stdout(&String::from_utf8_lossy(&page))?;
            }
        }
        Ok(0)
    }
}

/// The tree with the full name of each command, and without what users do not call.
fn tree() -> clap::Command {
    let mut tree = cli::command().after_long_help(GENERAL);
    tree.build();
    tree
}

fn find(words: &[String]) -> Result<clap::Command, CliError> {
    let mut command = tree();
    for word in words {
        let Some(found) = command.find_subcommand(word).filter(|c| !c.is_hide_set()) else {
            return Err(CliError::Usage {
                message: format!("there is no command {}", words.join(" ")),
                hint: "`onggi --help` lists the commands".to_owned(),
            });
        };
        command = found.clone();
    }
    Ok(command)
}

fn page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let version = concat!("onggi ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).source(version).manual("Onggi").render(&mut out)?;
    Ok(out)
}

fn write_all(dir: &Path) -> Result<(), CliError> {
    fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
    write(&tree(), dir)
}

/// Bounded by the depth of the command tree.
fn write(command: &clap::Command, dir: &Path) -> Result<(), CliError> {
    for inner in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write(inner, dir)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = dir.join(format!("{name}.1"));
    fs::write(&path, page(command)?).map_err(|source| failed(&path, source))
}

fn failed(path: &Path, source: std::io::Error) -> CliError {
    CliError::WriteFile { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Full names of all commands that users see.
    fn all(command: &clap::Command) -> Vec<clap::Command> {
        let inner = command.get_subcommands().filter(|c| !c.is_hide_set()).flat_map(all);
        std::iter::once(command.clone()).chain(inner).collect()
    }

    #[test]
    fn every_command_and_every_option_says_what_it_is_for() {
        for command in all(&tree()) {
            let name = command.get_display_name().unwrap_or_default().to_owned();
            assert!(command.get_about().is_some_and(|about| !about.to_string().is_empty()), "{name}");
            for arg in command.get_arguments().filter(|a| !a.is_hide_set()) {
                let explained = arg.get_help().is_some_and(|help| !help.to_string().is_empty());
                assert!(explained || arg.is_positional(), "{name}: {}", arg.get_id());
            }
        }
    }

    #[test]
    fn every_command_has_a_page_that_names_its_options() {
        for command in all(&tree()) {
            let text = String::from_utf8(page(&command).expect("a page")).expect("text");
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{text}");
            for option in command.get_arguments().filter(|a| !a.is_hide_set()).filter_map(|a| a.get_long()) {
                assert!(text.contains(&option.replace('-', "\\-")), "{} lacks --{option}", command.get_name());
            }
        }
    }
}
