//! What a command can fail with, printed once: `onggi: <what>: <why>`, then `hint: …`.

use std::{error::Error, io, io::Write as _};

use onggi_engine::EngineError;
use onggi_primitives::PrimitiveError;
use onggi_spec::ParseError;
use thiserror::Error;

use crate::cli::Codes;

/// A failed command.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// The engine's verb failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An argument does not follow its grammar.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Arguments that are right one by one but not together.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// stdout or stderr cannot be written; a closed pipe is silent.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    /// The terminal cannot be set.
    #[error("cannot {operation}")]
    Terminal {
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: rustix::io::Errno,
    },
    /// The stream to the container broke.
    #[error("the connection to the container broke")]
    Stream(#[source] io::Error),
    /// The container's monitor died.
    #[error("the monitor of container {name} died: the container was killed with it")]
    MonitorLost {
        /// The container.
        name: String,
    },
    /// SIGINT or SIGTERM came again and again, and the container goes on.
    #[error("container {name} goes on although it was asked to end")]
    LeftRunning {
        /// The container.
        name: String,
    },
    /// A file named on the command line cannot be read.
    #[error("cannot read {path}")]
    ReadFile {
        /// As written.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file named on the command line cannot be written.
    #[error("cannot write {path}")]
    WriteFile {
        /// As written.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The current directory is gone.
    #[error("cannot tell the current directory")]
    CurrentDirectory(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The kernel does not show, or does not do, what was asked.
    #[error(transparent)]
    Primitive(#[from] PrimitiveError),
    /// Control groups.
    #[error(transparent)]
    Group(#[from] onggi_primitives::cgroup::GroupError),
    /// A command of this machine cannot be executed.
    #[error("cannot execute {program:?}")]
    Execute {
        /// As written.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Network devices made by hand.
    #[error(transparent)]
    ByHand(onggi_network::NetworkError),
    /// A `--format` template over rows with these fields.
    #[error("wrong template")]
    Row {
        /// Why.
        source: gotmpl::TemplateError,
        /// What a template may name.
        fields: Vec<&'static str>,
    },
    /// A `--format` template.
    #[error("wrong template")]
    Template(#[from] gotmpl::TemplateError),
    /// A value cannot be written as JSON.
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
}

impl CliError {
    /// Wrong combination of arguments.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    /// Prints the error and its hint to stderr, unless it is that nobody reads our output.
    pub(crate) fn print(&self) {
        if self.is_closed_pipe() {
            return;
        }
        let mut text = format!("onggi: {}\n", self.line());
        if let Some(hint) = self.hint() {
            text.push_str(&format!("hint: {hint}\n"));
        }
        // When stderr is gone too, nobody is left to be told.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self, codes: Codes) -> u8 {
        let engine = match self {
            Self::Engine(e) => u8::try_from(e.exit_code()).unwrap_or(125),
            Self::Execute { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Execute { .. } => 126,
            _ => 125,
        };
        match (codes, engine) {
            // As a program that SIGPIPE ends.
            _ if self.is_closed_pipe() => 141,
            (Codes::Run, code) => code,
            (Codes::Invoke, 126 | 127) => engine,
            // As Docker: it is not the command's own.
            (Codes::Invoke, _) if matches!(self, Self::Engine(e) if e.is_about_an_account()) => 126,
            (Codes::Invoke | Codes::Plain, _) => 1,
        }
    }

    fn is_closed_pipe(&self) -> bool {
        match self {
            Self::Output(e) => e.kind() == io::ErrorKind::BrokenPipe,
            Self::Engine(e) => e.is_closed_pipe(),
            _ => false,
        }
    }

    /// What failed, and why, on one line.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Engine(e) => onggi_engine::error_chain(e),
            other => chain(other),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Engine(e) => return e.hint(),
            Self::Parse(e) => e.hint.clone(),
            Self::Usage { hint, .. } => hint.clone(),
            Self::LeftRunning { name } => format!("end it with: onggi stop {name}"),
            Self::Primitive(e) => e.hint().unwrap_or_default().to_owned(),
            Self::Group(e) => return e.hint(),
            Self::Execute { .. } => {
                "it is looked up where it runs: in the PATH of yours, in the namespaces that were entered".to_owned()
            }
            // What is said of a container's network does not hold here.
            Self::ByHand(e) if e.hint().contains("--network") => match rustix::process::geteuid().is_root() {
                true => {
                    "the kernel lacks it (load the modules), or you lack a capability here: onggi caps show".to_owned()
                }
                false => "network devices are made by root: try sudo, or a machine of your own: onggi ns run -r -n"
                    .to_owned(),
            },
            Self::ByHand(e) => e.hint().to_owned(),
            Self::Row { fields, .. } => format!("fields: {}", fields.join(", ")),
            Self::Template(_) => {
                "fields are called as in the JSON that the command shows with --format json (inspect: without --format)"
                    .to_owned()
            }
            _ => String::new(),
        };
        Some(hint).filter(|h| !h.is_empty())
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {}", onggi_sys::error::cause(cause)));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_docker() {
        let parse = CliError::Parse(ParseError::new("x", "y", "z"));
        assert_eq!(parse.exit_code(Codes::Run), 125);
        assert_eq!(parse.exit_code(Codes::Invoke), 1);
        assert_eq!(parse.exit_code(Codes::Plain), 1);
        let pipe = CliError::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(pipe.exit_code(Codes::Plain), 141);
    }

    #[test]
    fn an_error_and_its_cause_make_one_line() {
        let e = CliError::ReadFile { path: "f".into(), source: io::ErrorKind::NotFound.into() };
        assert_eq!(e.line(), "cannot read f: entity not found");
    }
}
