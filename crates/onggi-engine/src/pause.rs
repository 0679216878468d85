//! `pause` and `unpause`: all processes of a container stand still, and go on.
//!
//! A process that dies half-way leaves its intent, and the next command lets the container go on: it is paused when the
//! verb has succeeded, and otherwise it runs.

use onggi_spec::monitor::SandboxState;
use onggi_state::ContainerRecord;

use crate::{
    Engine, EngineError, failpoint,
    freeze::{self, PAUSED_HINT},
    status,
};

impl Engine {
    /// Has every process of a running container stand still. Its memory, network and log stay as they are.
    ///
    /// # Errors
    /// No such container, it does not run, or it is paused already.
    pub fn pause(&self, name: &str) -> Result<ContainerRecord, EngineError> {
        self.with_freezer(name, |record| {
            let state = self.to_freeze(record, "pause", "only a running container can be paused")?;
            if status::is_paused(&state) {
                let name = record.name.to_string();
                return Err(EngineError::WrongState { verb: "pause", name, state: "paused", hint: PAUSED_HINT });
            }
            let frozen = freeze::stand_still(&state);
            failpoint::hit("pause.frozen");
            // Killed or ended meanwhile: nothing stands still that could go on again.
            self.to_freeze(record, "pause", "it ended at this moment")?;
            frozen
        })
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// No such container, or it is not paused.
    pub fn unpause(&self, name: &str) -> Result<ContainerRecord, EngineError> {
        self.with_freezer(name, |record| {
            const HINT: &str = "only a paused container can go on; `onggi ps -a` shows the states";
            let state = self.to_freeze(record, "unpause", HINT)?;
            if !status::is_paused(&state) {
                let name = record.name.to_string();
                return Err(EngineError::WrongState { verb: "unpause", name, state: "running", hint: HINT });
            }
            freeze::go_on(&state)
        })
    }

    /// Works on the freezer of a container while nobody else does.
    fn with_freezer(
        &self,
        name: &str,
        work: impl FnOnce(&ContainerRecord) -> Result<(), EngineError>,
    ) -> Result<ContainerRecord, EngineError> {
        self.recover()?;
        let record = self.find(name)?;
        let intent = self.intents()?.wait(&freeze::intent_name(&record.id))?;
        let done = work(&record);
        intent.complete()?;
        done.map(|()| record)
    }

    /// What the runtime wrote about a container that runs.
    fn to_freeze(
        &self,
        record: &ContainerRecord,
        verb: &'static str,
        hint: &'static str,
    ) -> Result<SandboxState, EngineError> {
        match self.living(record)? {
            Some((_, state)) if state.started => Ok(state),
            _ => {
                let state = match self.status(&record.id)? {
                    // Its end is being written down.
                    status::Status::Running { .. } => "exited",
                    other => other.name(),
                };
                Err(EngineError::WrongState { verb, name: record.name.to_string(), state, hint })
            }
        }
    }
}
