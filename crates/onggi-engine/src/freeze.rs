//! The freezer of a running container's control group, used by `pause`, `unpause` and, for a moment, by `commit`.
//!
//! Whether a container stands still is nowhere written down: the kernel knows ([`crate::status`]). Whoever changes it
//! holds the intent `freeze-ID`, so that a `commit` neither lets a paused container go on nor is disturbed by an `unpause`.

use onggi_spec::{ContainerId, monitor::SandboxState};
use onggi_state::{ContainerRecord, files::Intent};
use onggi_sys::trace;

use crate::{Engine, EngineError, failpoint, status};

/// How the intents of freezes begin; the container's id follows. A process that dies while it holds one leaves a container
/// that stands still, which the next command lets go on.
pub(crate) const FREEZE_INTENT: &str = "freeze-";

/// What helps against the pause of a container.
pub(crate) const PAUSED_HINT: &str = "let it go on first: onggi unpause NAME";

/// While this lives, the container stands still.
pub(crate) struct Frozen<'e> {
    engine: &'e Engine,
    id: ContainerId,
    intent: Option<Intent>,
}

pub(crate) fn intent_name(id: &ContainerId) -> String {
    format!("{FREEZE_INTENT}{id}")
}

impl Engine {
    /// `None` for a container that does not run, or stands still already.
    pub(crate) fn freeze(&self, record: &ContainerRecord) -> Result<Option<Frozen<'_>>, EngineError> {
        if self.process(record)?.is_none() {
            return Ok(None);
        }
        let intent = self.intents()?.wait(&intent_name(&record.id))?;
        let id = record.id.clone();
        // From here on dropping it lets the container go on.
        let mut frozen = Frozen { engine: self, id, intent: Some(intent) };
        match self.living(record)? {
            Some((_, state)) if !status::is_paused(&state) => {
                if let Err(e) = stand_still(&state) {
                    return Err(frozen.abandon(e));
                }
            }
            _ => {
                frozen.complete()?;
                return Ok(None);
            }
        }
        failpoint::hit("commit.frozen");
        Ok(Some(frozen))
    }

    /// Lets a container go on that a dead process has frozen. One that is gone, or goes already, needs nothing.
    pub(crate) fn thaw_abandoned(&self, id: &str) {
        if let Ok(id) = id.parse()
            && let Err(e) = self.let_go(&id)
        {
            tracing::warn!("cannot resume container {}: {}", id.short(), crate::error_chain(&e));
        }
    }

    /// Lets the processes of a container go on, if they stand still. The caller holds the intent.
    pub(crate) fn let_go(&self, id: &ContainerId) -> Result<(), EngineError> {
        match self.sandbox_state(id)? {
            Some(state) if status::is_paused(&state) => go_on(&state),
            _ => Ok(()),
        }
    }
}

/// Returns when every process stands still.
pub(crate) fn stand_still(state: &SandboxState) -> Result<(), EngineError> {
    if state.cgroup_paths.is_empty() {
        return Err(EngineError::Unsupported {
            what: "pausing the container".into(),
            reason: "it has no control group of its own, as with every user but root".into(),
            hint: "run it as root; `onggi commit --pause=false` needs no pause".into(),
        });
    }
    let freeze = || onggi_cgroup::freeze(&state.cgroup_paths);
    Ok(trace::step("cgroup", || format!("freeze the control group of container {}", state.id), freeze)?)
}

/// Returns when they run. Groups that disappear meanwhile hold nothing still.
pub(crate) fn go_on(state: &SandboxState) -> Result<(), EngineError> {
    let thaw = || onggi_cgroup::thaw(&state.cgroup_paths);
    match trace::step("cgroup", || format!("thaw the control group of container {}", state.id), thaw) {
        Err(e) if status::is_paused(state) => Err(e.into()),
        _ => Ok(()),
    }
}

impl Frozen<'_> {
    /// Lets the container go on.
    pub(crate) fn thaw(mut self) -> Result<(), EngineError> {
        self.engine.let_go(&self.id)?;
        self.complete()
    }

    fn complete(&mut self) -> Result<(), EngineError> {
        Ok(self.intent.take().map_or(Ok(()), Intent::complete)?)
    }

    /// It was never frozen.
    fn abandon(mut self, cause: EngineError) -> EngineError {
        self.complete().err().unwrap_or(cause)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if self.intent.is_none() {
            return;
        }
        let resumed = self.engine.let_go(&self.id);
        if let Err(e) = resumed.and_then(|()| self.complete()) {
            tracing::warn!("cannot resume container {}: {}", self.id.short(), crate::error_chain(&e));
        }
    }
}
