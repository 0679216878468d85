//! Plans that end in a command.

use std::{
    ffi::OsString,
    io::{PipeWriter, Write as _},
    os::fd::AsRawFd as _,
    process::{Child, Command, Stdio},
};

use onggi_primitives::{Outside, Stage, UnsharePlan, apply};

use super::ns::child;
use crate::error::CliError;

/// Becomes the plan's command, or its parent. Without a command there is nothing more to do.
pub(crate) fn carry_out(plan: &UnsharePlan) -> Result<u8, CliError> {
    let mut helper = plan.outside().map(Helper::start).transpose()?;
    let mut stage = apply(plan)?;
    loop {
        match stage {
            Stage::Execute(command) if command.is_empty() => return Ok(0),
            Stage::Execute(command) => return child::become_command(&command),
            Stage::Outside(rest) => {
                helper = helper.map(Helper::begin).transpose()?.flatten();
                stage = apply(&rest)?;
            }
            Stage::Fork(rest) => return fork(&rest, helper),
        }
    }
}

/// This program again: what a forked copy of it could do without a thread of its own is little. Where the helper
/// needs the child, the child goes on only when the helper has succeeded.
fn fork(rest: &UnsharePlan, helper: Option<Helper>) -> Result<u8, CliError> {
    let mut words = ["/proc/self/exe", "ns", "__inside"].map(OsString::from).to_vec();
    let rest = OsString::from(serde_json::to_string(rest)?);
    let Some(helper) = helper else {
        words.push(rest);
        return child::run(&words, || Ok(()));
    };
    let (gate, opener) = std::io::pipe().map_err(CliError::Stream)?;
    rustix::io::fcntl_setfd(&gate, rustix::io::FdFlags::empty()).map_err(|e| CliError::Stream(e.into()))?;
    words.extend(["--gate".into(), gate.as_raw_fd().to_string().into(), rest]);
    child::run(&words, || {
        drop(gate);
        helper.wait().and_then(|()| go(opener))
    })
}

/// One byte: what is behind the gate may go on. The end of the stream alone tells it not to.
fn go(mut opener: PipeWriter) -> Result<(), CliError> {
    opener.write_all(b"+").map_err(CliError::Stream)
}

/// This program again, outside of the namespaces that this process is about to enter.
struct Helper {
    child: Child,
    waits: bool,
}

impl Helper {
    fn start(outside: &Outside) -> Result<Self, CliError> {
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => CliError::usage(
                "this program starts itself again by /proc, and there is none",
                "mount -t proc proc /proc",
            ),
            _ => CliError::Execute { program: "the helper outside".to_owned(), source },
        };
        let mut command = Command::new("/proc/self/exe");
        command.args(["ns", "__outside"]).arg(serde_json::to_string(outside)?).stdin(Stdio::piped());
        Ok(Self { child: command.spawn().map_err(failed)?, waits: outside.waits_for_child() })
    }

    /// The namespaces are there. What needs no child of theirs is done when this returns.
    fn begin(mut self) -> Result<Option<Self>, CliError> {
        if let Some(mut stdin) = self.child.stdin.take() {
            stdin.write_all(b"+").map_err(CliError::Stream)?;
        }
        if self.waits {
            return Ok(Some(self));
        }
        self.wait()?;
        Ok(None)
    }

    fn wait(mut self) -> Result<(), CliError> {
        let failed = |source| CliError::Execute { program: "the helper outside".to_owned(), source };
        match self.child.wait().map_err(failed)?.success() {
            true => Ok(()),
            false => Err(CliError::usage("the helper outside failed, as it says", "the command was not run")),
        }
    }
}
