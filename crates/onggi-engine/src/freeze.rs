//! Stops the processes of a running container for a moment, through the runtime's freezer.

use std::{ffi::OsString, fs::File, os::fd::AsFd};

use onggi_spec::ContainerId;
use onggi_state::{ContainerRecord, files::Intent};
use onggi_sys::process::wait_pidfd;

use crate::{
    Engine, EngineError, failpoint, launch,
    process::{self, Session},
};

/// How the intents of freezes begin; the container's id follows. A process that dies while it holds one leaves a container
/// that stands still, which the next command lets go on.
pub(crate) const FREEZE_INTENT: &str = "freeze-";

/// While this lives, the container stands still.
pub(crate) struct Frozen<'e> {
    engine: &'e Engine,
    id: ContainerId,
    intent: Option<Intent>,
}

impl Engine {
    /// `None` for a container that does not run.
    pub(crate) fn freeze(&self, record: &ContainerRecord) -> Result<Option<Frozen<'_>>, EngineError> {
        if self.process(record)?.is_none() {
            return Ok(None);
        }
        let intent = self.intents()?.wait(&format!("{FREEZE_INTENT}{}", record.id))?;
        let id = record.id.clone();
        // From here on dropping it lets the container go on.
        let frozen = Frozen { engine: self, id, intent: Some(intent) };
        if let Err(e) = self.runtime_verb("pause", &record.id) {
            return Err(frozen.abandon(e));
        }
        failpoint::hit("commit.frozen");
        Ok(Some(frozen))
    }

    /// Lets a container go on that a dead process has frozen. One that is gone, or goes already, needs nothing.
    pub(crate) fn thaw_abandoned(&self, id: &str) {
        if let Ok(id) = id.parse()
            && let Err(e) = self.runtime_verb("resume", &id)
        {
            tracing::debug!("container {id} is not frozen: {}", crate::error_chain(&e));
        }
    }

    /// Runs a verb of `onggi-oci` on a container to its end.
    fn runtime_verb(&self, verb: &'static str, id: &ContainerId) -> Result<(), EngineError> {
        let (err, err_write) = process::pipe()?;
        let args: Vec<OsString> =
            vec!["--root".into(), self.paths.oci_root().into_os_string(), verb.into(), id.as_str().into()];
        let fds = vec![(err_write, 2)];
        let child = self.spawn_runtime(args, &fds, Session::Ours)?;
        drop(fds);
        let message = launch::read_bounded(File::from(err)).unwrap_or_default();
        let code = wait_pidfd(child.pidfd.as_fd())
            .map_err(|source| EngineError::Sys { op: format!("wait for onggi-oci {verb}"), source })?
            .code();
        if code == 0 {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&message).trim().to_owned();
        Err(EngineError::Runtime { verb, message, hint: String::new(), exit_code: 125 })
    }
}

impl Frozen<'_> {
    /// Lets the container go on.
    pub(crate) fn thaw(mut self) -> Result<(), EngineError> {
        let intent = self.intent.take();
        self.engine.runtime_verb("resume", &self.id)?;
        Ok(intent.map_or(Ok(()), Intent::complete)?)
    }

    /// It was never frozen.
    fn abandon(mut self, cause: EngineError) -> EngineError {
        match self.intent.take().map_or(Ok(()), Intent::complete) {
            Ok(()) => cause,
            Err(e) => e.into(),
        }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let Some(intent) = self.intent.take() else { return };
        let resumed = self.engine.runtime_verb("resume", &self.id);
        if let Err(e) = resumed.and_then(|()| Ok(intent.complete()?)) {
            tracing::warn!("cannot resume container {}: {}", self.id.short(), crate::error_chain(&e));
        }
    }
}
