//! Would the container's command start? The kernel's own answer is one errno for five causes; this finds the cause.

use onggi_spec::{elf, monitor::OverlayMount};

use super::overlay::{Found, View};
use crate::error::{InRootProblem, Result, StorageError};
use crate::limits::{MAX_EXEC_HEAD, MAX_INTERPRETERS};

/// A command as the container would run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutableQuery<'a> {
    /// First word of the command.
    pub argv0: &'a str,
    /// `PATH` of the container's environment.
    pub path: &'a str,
    /// Its working directory; a relative `argv0` with a slash starts there.
    pub cwd: &'a str,
}

/// A command that can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// In-root path.
    pub path: String,
}

/// Why a command cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecutableProblem {
    /// Nowhere in `PATH`, or not at that path: exit code 127.
    #[error("{name:?} is not in the container's {}", if *in_path { "PATH" } else { "filesystem" })]
    NotFound {
        /// As asked for.
        name: String,
        /// It was searched in `PATH`.
        in_path: bool,
    },
    /// A directory, not marked executable, or in no format that the kernel runs: exit code 126.
    #[error("{path:?} {reason}")]
    NotExecutable {
        /// In-root path.
        path: String,
        /// Which of them.
        reason: &'static str,
    },
    /// Its loader or `#!` interpreter does not exist: exit code 127.
    #[error("{path:?} needs the interpreter {interpreter:?}, which is not in the container's filesystem")]
    MissingInterpreter {
        /// In-root path.
        path: String,
        /// The interpreter.
        interpreter: String,
    },
    /// For another machine: exit code 126. May still work where binfmt_misc(5) has an emulator.
    #[error("{path:?} is a program for {architecture}")]
    WrongArchitecture {
        /// In-root path.
        path: String,
        /// OCI's name of the architecture.
        architecture: &'static str,
    },
}

impl ExecutableProblem {
    /// 127 for "not found", 126 for "cannot be invoked", as shells and Docker.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound { .. } | Self::MissingInterpreter { .. } => 127,
            Self::NotExecutable { .. } | Self::WrongArchitecture { .. } => 126,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "check the command's spelling, or give its full path",
            Self::NotExecutable { .. } => "chmod +x it in the image, or run it through an interpreter such as sh",
            Self::MissingInterpreter { .. } => "use an image that contains the interpreter, or a static program",
            Self::WrongArchitecture { .. } => "use an image for this machine's architecture",
        }
    }
}

/// Finds the command as execvp(3) would inside the container. The outer error is a filesystem that cannot be read, the
/// inner one a command that cannot start.
///
/// # Errors
/// A directory or file cannot be read.
pub fn find_executable(
    mount: &OverlayMount,
    query: &ExecutableQuery<'_>,
) -> Result<std::result::Result<Executable, ExecutableProblem>> {
    let view = View::open(mount)?;
    let in_path = !query.argv0.contains('/');
    let mut problem = ExecutableProblem::NotFound { name: query.argv0.to_owned(), in_path };
    if query.argv0.is_empty() {
        return Ok(Err(problem));
    }
    for candidate in candidates(query, in_path) {
        match check(&view, &candidate)? {
            Ok(()) => return Ok(Ok(Executable { path: candidate })),
            Err(ExecutableProblem::NotFound { .. }) => {}
            // execvp goes on after EACCES, and reports it when nothing better follows.
            Err(found @ ExecutableProblem::NotExecutable { .. }) if in_path => problem = found,
            Err(found) => return Ok(Err(found)),
        }
    }
    Ok(Err(problem))
}

/// The paths at which a command is looked for, in order.
pub(super) fn searched(query: &ExecutableQuery<'_>) -> Vec<String> {
    candidates(query, !query.argv0.contains('/'))
}

fn candidates(query: &ExecutableQuery<'_>, in_path: bool) -> Vec<String> {
    let join = |dir: &str, name: &str| {
        if name.starts_with('/') {
            return name.to_owned();
        }
        let dir = if dir.starts_with('/') { dir.to_owned() } else { format!("{}/{dir}", query.cwd) };
        format!("{}/{name}", dir.trim_end_matches('/'))
    };
    if in_path {
        query.path.split(':').map(|dir| join(dir, query.argv0)).collect()
    } else {
        vec![join(query.cwd, query.argv0)]
    }
}

type Check = std::result::Result<(), ExecutableProblem>;

fn check(view: &View, path: &str) -> Result<Check> {
    let not_found = || ExecutableProblem::NotFound { name: path.to_owned(), in_path: false };
    let refused = |reason| ExecutableProblem::NotExecutable { path: path.to_owned(), reason };
    let found = match view.lookup(path.as_bytes()) {
        Ok(Some(found)) => found,
        Ok(None) | Err(StorageError::InRoot { problem: InRootProblem::BadPath, .. }) => return Ok(Err(not_found())),
        Err(StorageError::InRoot { .. }) => return Ok(Err(refused("has too many levels of symbolic links"))),
        Err(e) => return Err(e),
    };
    if !found.is_file() {
        return Ok(Err(refused("is not a regular file")));
    }
    if found.stat.st_mode & 0o111 == 0 {
        return Ok(Err(refused("is not marked executable")));
    }
    interpretable(view, path, &found)
}

/// Follows `#!` and ELF interpreters as fs/exec.c does.
fn interpretable(view: &View, path: &str, found: &Found) -> Result<Check> {
    let mut head = found.read(path.as_bytes(), MAX_EXEC_HEAD)?;
    for _ in 0..MAX_INTERPRETERS {
        let interpreter = match interpreter(&head) {
            Program::Direct => return Ok(Ok(())),
            Program::Through(interpreter) => interpreter,
            Program::Foreign(architecture) => {
                return Ok(Err(ExecutableProblem::WrongArchitecture { path: path.to_owned(), architecture }));
            }
            Program::Unknown => {
                let reason = "is neither a program nor a script that starts with #!";
                return Ok(Err(ExecutableProblem::NotExecutable { path: path.to_owned(), reason }));
            }
        };
        let missing = || ExecutableProblem::MissingInterpreter {
            path: path.to_owned(),
            interpreter: crate::error::shown(&interpreter),
        };
        match view.lookup(&interpreter) {
            Ok(Some(next)) if next.is_file() => head = next.read(&interpreter, MAX_EXEC_HEAD)?,
            Ok(_) | Err(StorageError::InRoot { .. }) => return Ok(Err(missing())),
            Err(e) => return Err(e),
        }
    }
    let reason = "needs too many interpreters";
    Ok(Err(ExecutableProblem::NotExecutable { path: path.to_owned(), reason }))
}

/// How a file would be run.
enum Program {
    Direct,
    Through(Vec<u8>),
    Foreign(&'static str),
    Unknown,
}

fn interpreter(head: &[u8]) -> Program {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
        let word = line.split(|b| matches!(b, b' ' | b'\t' | b'\0')).find(|w| !w.is_empty());
        return word.map_or(Program::Unknown, |w| Program::Through(w.to_vec()));
    }
    match elf::machine(head) {
        Some(machine) if !elf::runs_here(machine) => Program::Foreign(elf::machine_name(machine)),
        // An ELF interpreter has none of its own.
        Some(_) => elf::interpreter_within(head).map_or(Program::Direct, Program::Through),
        None => Program::Unknown,
    }
}
