//! The words of a command that stands behind options of ours.

use crate::error::CliError;

/// The command, unless it begins with an option that is none of ours: nobody meant that as a program.
///
/// For commands whose words clap takes as they are; elsewhere clap refuses such a word itself.
pub(crate) fn no_option(command: &[String]) -> Result<&[String], CliError> {
    refuse_option(command, std::env::args_os().map(|word| word.to_string_lossy().into_owned()))?;
    Ok(command)
}

/// `line` ends with `command`. Behind `--` everything is a program.
fn refuse_option(command: &[String], mut line: impl ExactSizeIterator<Item = String>) -> Result<(), CliError> {
    let Some(first) = command.first().filter(|word| word.starts_with('-')) else { return Ok(()) };
    let before = line.len().checked_sub(command.len() + 1);
    if before.and_then(|at| line.nth(at)).is_some_and(|word| word == "--") {
        return Ok(());
    }
    Err(CliError::usage(
        format!("unknown option {first:?}"),
        "--help lists the options; a program that is called so is written behind --",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_looks_like_an_option_needs_two_dashes_before_it() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let refused = |line: &str, command: &str| refuse_option(&words(command), words(line).into_iter()).is_err();
        assert!(refused("onggi ns enter web --bogus", "--bogus"));
        assert!(refused("onggi ns enter web --bogus -- x", "--bogus -- x"));
        assert!(!refused("onggi ns enter web -- --bogus x", "--bogus x"));
        assert!(!refused("onggi ns enter web ls -l", "ls -l"));
        assert!(refuse_option(&[], words("onggi").into_iter()).is_ok());
    }
}
