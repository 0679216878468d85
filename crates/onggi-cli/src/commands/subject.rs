//! What a command that looks at the kernel is pointed at: a process by its number, or a container by its name.

use onggi_primitives::{PrimitiveError, ProcessFacts, process};

use crate::{cli::GlobalArgs, error::CliError};

/// Digits of the highest process number (proc_sys_kernel(5), `pid_max`). What is longer can only be an id.
const PID_DIGITS: usize = 7;

/// The process that `text` means: its own, or the first one of a running container.
pub(crate) fn pid(text: &str, global: &GlobalArgs) -> Result<i32, CliError> {
    if text == "self" {
        return Ok(std::process::id().cast_signed());
    }
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i32>().ok()).flatten();
    match number.filter(|_| text.len() <= PID_DIGITS) {
        // A container may be called 42 too, and then it is meant where there is no such process.
        Some(pid) => match process(pid) {
            Ok(_) => Ok(pid),
            Err(gone @ PrimitiveError::NoProcess { .. }) => {
                let container = global.engine().and_then(|engine| Ok(engine.first_process(text)?));
                container.map_err(|_| gone.into())
            }
            Err(e) => Err(e.into()),
        },
        None => global.engine()?.first_process(text).map_err(|e| match e.is_no_such_container() {
            true if text.bytes().all(|b| b.is_ascii_digit()) => CliError::usage(
                format!("there is no process {text}, and no container"),
                "ps -e lists processes, onggi ps lists containers",
            ),
            _ => e.into(),
        }),
    }
}

/// As [`pid`], for commands that take files too, whose paths have a slash.
pub(crate) fn pid_not_file(text: &str, global: &GlobalArgs) -> Result<i32, CliError> {
    pid(text, global).map_err(|e| match std::fs::symlink_metadata(text) {
        Ok(_) => CliError::usage(
            format!("there is no process or container {text}, but a file"),
            format!("write the path of a file with a slash: ./{text}"),
        ),
        Err(_) => e,
    })
}

/// The facts of that process.
pub(crate) fn facts(text: &str, global: &GlobalArgs) -> Result<ProcessFacts, CliError> {
    Ok(process(pid(text, global)?)?)
}
